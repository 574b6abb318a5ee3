package server

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// described is the description of everything that this program can serve. It is
// made from openapi.yaml.
//
//go:embed openapi/openapi.json
var described []byte

// newDescription is the description of what this server serves.
func newDescription(routes []route, version string) (json.RawMessage, error) {
	var doc map[string]any
	if err := json.Unmarshal(described, &doc); err != nil {
		return nil, fmt.Errorf("read description: %w", err)
	}
	served := map[string]bool{}
	for _, rt := range routes {
		served[strings.TrimSuffix(rt.path, "{$}")+" "+strings.ToLower(rt.method)] = true
	}
	paths, _ := doc["paths"].(map[string]any)
	for path, item := range paths {
		methods, _ := item.(map[string]any)
		left := 0
		for _, method := range []string{"get", "post", "put", "patch", "delete"} {
			if !served[path+" "+method] {
				delete(methods, method)
			} else {
				left++
			}
		}
		if left == 0 {
			delete(paths, path)
		}
	}
	if info, is := doc["info"].(map[string]any); is && version != "" {
		info["version"] = version
	}
	return json.Marshal(doc)
}

// describe answers with the description.
func (s *Server) describe(*http.Request) (reply, error) { return ok(s.description), nil }
