package cmd

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"appview/cmd/service"
	"appview/internal/sandbox"
)

func TestLogsTellOfReposAndOfNoSecretAndNoRecord(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	broken := world.Repos()[0]
	world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Part == sandbox.PartPDS && q.DID == broken.DID.String() {
			return sandbox.Fault{Status: http.StatusForbidden, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(`{"error":"No"}`)}
		}
		return sandbox.Fault{}
	})
	s := serveIn(t, world, dir, "--log-level", "debug", "--log-format", "text")
	key := strings.TrimSpace(read(t, filepath.Join(dir, service.KeyFile)))
	for _, did := range []string{broken.DID.String(), world.Repos()[1].DID.String()} {
		want(t, exitOK, "completed", nil, "backfill", "create", "--watch", "--did", did, "--data-dir", dir)
	}
	want(t, exitError, "the key is not known here", nil, "stats", "--url", s.url, "--key", "hv_this-is-another-key-altogether")
	_, _ = page(t, s.url+"/admin/stats?key="+key)
	s.end()
	log := s.log.String()
	told := false
	for line := range strings.Lines(log) {
		told = told || strings.Contains(line, `msg="repo not read"`) && strings.Contains(line, "did="+broken.DID.String()) &&
			strings.Contains(line, "job=") && strings.Contains(line, "host="+broken.Host) && strings.Contains(line, "reason=http_4xx")
		if strings.Contains(line, "hv_") {
			t.Errorf("a key is in the log: %s", line)
		}
		if strings.Contains(line, "at://") || strings.Contains(line, "rkey") {
			t.Errorf("a record is in the log: %s", line)
		}
	}
	if !told {
		t.Errorf("nothing tells why %s was not read:\n%s", broken.DID, log)
	}
}
