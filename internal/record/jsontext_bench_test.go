//go:build goexperiment.jsonv2

package record_test

import (
	"bytes"
	"encoding/json/jsontext"
	"io"
	"strings"
	"testing"

	"appview/internal/record"
)

// BenchmarkTokenizers reads a page of a listing to its end, as raw values of its records,
// with this package's tokenizer and with the one of encoding/json/v2:
// GOEXPERIMENT=jsonv2 go test -run '^$' -bench Tokenizers ./internal/record
func BenchmarkTokenizers(b *testing.B) {
	page := []byte(`{"records":[` + strings.Repeat(benchValue()+",", 99) + benchValue() + `],"cursor":"x"}`)
	for _, c := range []struct {
		name string
		read func() (records int, err error)
	}{
		{"record", func() (n int, err error) {
			return n, record.ScanObject(page, func(s *record.Scanner, key string) error {
				if key != "records" {
					return s.Skip()
				}
				return s.Array(func() error { n++; _, err := s.Value(); return err })
			})
		}},
		{"jsontext", func() (n int, err error) {
			d := jsontext.NewDecoder(bytes.NewReader(page))
			for depth := 0; ; {
				t, err := d.ReadToken()
				switch {
				case err == io.EOF:
					return n, nil
				case err != nil:
					return n, err
				case t.Kind() == '[':
					for d.PeekKind() != ']' {
						if _, err := d.ReadValue(); err != nil {
							return n, err
						}
						n++
					}
				case t.Kind() == '{':
					depth++
				}
			}
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(page)))
			b.ReportAllocs()
			for b.Loop() {
				if n, err := c.read(); err != nil || n != 0 && n != 100 {
					b.Fatal(n, err)
				}
			}
		})
	}
}
