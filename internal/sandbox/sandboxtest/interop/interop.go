// Package interop holds the fixtures by which implementations of the AT Protocol show that
// they agree: identifiers, the data model, keys and signatures, trees and CARs. They are
// data of others; testdata/README.md says whose.
package interop

import (
	"embed"
	"encoding/json"
	"strings"
	"testing"
)

//go:embed testdata
var files embed.FS

// File is the content of a file under testdata.
func File(tb testing.TB, name string) []byte {
	tb.Helper()
	data, err := files.ReadFile("testdata/" + name)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

// JSON decodes a file under testdata.
func JSON(tb testing.TB, name string, into any) {
	tb.Helper()
	if err := json.Unmarshal(File(tb, name), into); err != nil {
		tb.Fatalf("%s: %v", name, err)
	}
}

// Lines are the lines of a file under testdata, without comments and empty ones. Spaces at
// their ends belong to them.
func Lines(tb testing.TB, name string) (lines []string) {
	tb.Helper()
	for line := range strings.Lines(string(File(tb, name))) {
		line = strings.TrimRight(line, "\r\n")
		if line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		tb.Fatalf("%s has no lines", name)
	}
	return lines
}
