package interop_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"appview/internal/sandbox/sandboxtest/interop"
)

const preamble = `# Interoperability

The fixtures by which implementations of the AT Protocol show that they agree are run through this program: identifiers
valid and invalid, the data model, keys and signatures, DID documents, trees, CARs, and blocks of events of the network.
Where they come from, and their licence: [internal/sandbox/sandboxtest/interop/testdata](../internal/sandbox/sandboxtest/interop/testdata/README.md).
Identifiers go in by every route and parameter that takes one; records go from a host to a reader, listed and in one piece;
signatures are tried on whole repos. ` + "`go test -run Interop ./...`" + ` runs it all.

All of it comes out as the fixtures say, but for these cases:

| fixture | case | what this program does | why |
|---|---|---|---|
`

const closing = `
Repos of version 2, as some CARs of the fixtures are, are refused as a whole and listed instead: hosts have long brought all
repos to version 3.
`

// TestInteropDocsListTheDisagreements holds docs/interop.md to the list. UPDATE_DOCS=1
// makes it anew.
func TestInteropDocsListTheDisagreements(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(preamble)
	for _, d := range interop.Disagreements() {
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s |\n", d.Fixture, d.Case, d.Ours, d.Why)
	}
	b.WriteString(closing)
	const path = "../../../../docs/interop.md"
	if os.Getenv("UPDATE_DOCS") != "" {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != b.String() {
		t.Errorf("docs/interop.md is out of date, %v: make docs", err)
	}
}

// TestInteropDisagreementsAreCases wants every disagreement to be about a case that there is.
func TestInteropDisagreementsAreCases(t *testing.T) {
	t.Parallel()
	for _, d := range interop.Disagreements() {
		there := false
		if d.Fixture == "data-model" {
			there = strings.Contains(string(interop.File(t, "data/data-model-invalid.json")), `"note": "`+d.Case+`"`)
		} else {
			d.Fixture = strings.TrimSuffix(d.Fixture, " of a record")
			for _, line := range append(interop.Lines(t, "syntax/"+d.Fixture+"_syntax_valid.txt"), interop.Lines(t, "syntax/"+d.Fixture+"_syntax_invalid.txt")...) {
				there = there || line == d.Case
			}
		}
		if !there || d.Why == "" || d.Ours == "" {
			t.Errorf("%+v", d)
		}
	}
}
