// Package openapi describes the HTTP API: openapi.yaml is its source, of which openapi.json
// and docs/api.md are made.
package openapi

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// document is the description of everything that this program can serve.
//
//go:embed openapi.json
var document []byte

// Document is the description of everything that this program can serve.
func Document() []byte { return document }

// Of is the description of what a server serves, of the version of a program.
func Of(served func(method, path string) bool, version string) (json.RawMessage, error) {
	var doc map[string]any
	if err := json.Unmarshal(document, &doc); err != nil {
		return nil, fmt.Errorf("read description: %w", err)
	}
	paths, _ := doc["paths"].(map[string]any)
	for path, item := range paths {
		methods, _ := item.(map[string]any)
		left := 0
		for _, method := range []string{"get", "post", "put", "patch", "delete"} {
			if !served(method, path) {
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

// Paths is every path that is described, in order.
func Paths() ([]string, error) {
	var doc struct{ Paths map[string]json.RawMessage }
	if err := json.Unmarshal(document, &doc); err != nil {
		return nil, fmt.Errorf("read description: %w", err)
	}
	return slices.Sorted(maps.Keys(doc.Paths)), nil
}
