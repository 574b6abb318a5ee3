//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTutorialApp runs the app of docs/tutorial.md, with the official client, against
// the program's own demo. The commands of that page are run by the tests of cmd.
func TestTutorialApp(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/tutorial.md")
	if err != nil {
		t.Fatal(err)
	}
	_, app, begins := strings.Cut(string(page), "\n```js\n")
	app, _, ends := strings.Cut(app, "\n```\n")
	if !begins || !ends {
		t.Fatal("the tutorial has no app")
	}
	parts := installedParts(t)
	if err := os.WriteFile(filepath.Join(parts.scripts, "app.mjs"), []byte(app), 0o600); err != nil {
		t.Fatal(err)
	}
	port := freePorts(t, 1)[0]
	demo := start(t, "demo", nil, os.Getenv("E2E_APPVIEW_BIN"), "demo", "--listen", address(port))
	index := loopback(port)
	demo.ready(t, func(ctx context.Context) error {
		var list struct{ Records []any }
		query := url.Values{"collection": {"xyz.statusphere.status"}, "limit": {"10"}}
		if err := index.get(ctx, "/api/records", query, "", &list); err != nil {
			return err
		}
		if len(list.Records) < 10 {
			return fmt.Errorf("%d records are indexed", len(list.Records))
		}
		return nil
	})
	p := parts.node(t, "app", []string{"APPVIEW_URL=" + string(index)}, "app.mjs")
	if err := p.wait(); err != nil {
		t.Fatalf("the tutorial's app: %v\n%s", err, p.tail())
	}
	lines := strings.Split(p.tail(), "\n")
	front := regexp.MustCompile(`^did:plc:[a-z2-7]{24} \S+ 20\d\d-\d\d-\d\dT`)
	count := 0
	for _, line := range lines {
		if front.MatchString(line) {
			count++
		}
	}
	if said := p.tail(); count != 10 || !regexp.MustCompile(`\ndid:plc:\S+ has [1-9]\d* statuses\nat://did:plc:`).MatchString(said) {
		t.Errorf("the tutorial's app printed %d statuses of everybody's latest ten:\n%s", count, said)
	}
}
