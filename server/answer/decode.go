package answer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxBody is the longest request body.
const MaxBody = 64 << 10

// JSONSpace is what may stand around a JSON value.
const JSONSpace = " \t\r\n"

// Member is one name that a body may have, and where its value goes.
type Member struct {
	name string
	into any // *string or *[]string
}

// Optional is a member that may be left out.
func Optional(name string, into any) Member { return Member{name, into} }

// DecodeBody reads a JSON object whose members are strings, or lists of them. It
// is stricter than encoding/json: names are exact, none comes twice, and nothing
// follows the object. A mistyped name must not turn a small request into one for everything.
func DecodeBody(r io.Reader, members ...Member) error {
	data, err := io.ReadAll(r)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return err
	case err != nil:
		return BadRequest("the body could not be read to its end")
	}
	return decodeObject(data, members)
}

func decodeObject(data []byte, members []Member) error {
	data = bytes.Trim(data, JSONSpace)
	switch {
	case len(data) == 0:
		return nil // no body is {}
	case !utf8.Valid(data):
		return BadRequest("the body is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	var first json.RawMessage
	if err := dec.Decode(&first); err != nil {
		return BadRequest("the body is not valid JSON: %s", syntaxOf(err))
	}
	if first[0] != '{' {
		return BadRequest("the body must be a JSON object, it is %s", kindOf(first[0]))
	}
	if rest := bytes.Trim(data[dec.InputOffset():], JSONSpace); len(rest) > 0 {
		return BadRequest("the body must be one JSON object, but something follows it")
	}
	return decodeMembers(first, members)
}

func decodeMembers(object []byte, members []Member) error {
	dec := json.NewDecoder(bytes.NewReader(object))
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("read checked object: %w", err)
	}
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return fmt.Errorf("read checked object: %w", err)
		}
		name, _ := token.(string)
		i := slices.IndexFunc(members, func(m Member) bool { return m.name == name })
		switch {
		case i < 0:
			return unknownMember(name, members)
		case seen[name]:
			return BadRequest("%s is given twice", name)
		}
		seen[name] = true
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return fmt.Errorf("read checked object: %w", err)
		}
		if err := decodeMember(name, value, members[i].into); err != nil {
			return err
		}
	}
	return nil
}

func decodeMember(name string, value json.RawMessage, into any) error {
	if value[0] == 'n' {
		return nil // null is left out
	}
	switch into := into.(type) {
	case *string:
		return decodeString(name, value, into)
	case *[]string:
		return decodeStrings(name, value, into)
	default:
		return fmt.Errorf("read member %s: nothing is read into a %T", name, into)
	}
}

func decodeString(name string, value json.RawMessage, into *string) error {
	if value[0] != '"' {
		return BadRequest("%s must be a string, it is %s", name, kindOf(value[0]))
	}
	if err := json.Unmarshal(value, into); err != nil {
		return fmt.Errorf("read checked string: %w", err)
	}
	if *into == "" {
		return BadRequest("%s is an empty string: leave it out instead", name)
	}
	return nil
}

func decodeStrings(name string, value json.RawMessage, into *[]string) error {
	if value[0] != '[' {
		return BadRequest("%s must be a list of strings, it is %s", name, kindOf(value[0]))
	}
	var list []json.RawMessage
	if err := json.Unmarshal(value, &list); err != nil {
		return fmt.Errorf("read checked list: %w", err)
	}
	if len(list) == 0 {
		return BadRequest("%s is an empty list: leave it out instead", name)
	}
	*into = make([]string, len(list))
	for i, one := range list {
		if err := decodeString(fmt.Sprintf("%s[%d]", name, i), one, &(*into)[i]); err != nil {
			return err
		}
	}
	return nil
}

func unknownMember(name string, members []Member) error {
	if len(members) == 0 {
		return BadRequest("unknown member %s: nothing is needed in this body", Quoted(name))
	}
	names := make([]string, len(members))
	for i, m := range members {
		names[i] = m.name
		if strings.EqualFold(m.name, name) {
			return BadRequest("unknown member %s: write %s", Quoted(name), m.name)
		}
	}
	return BadRequest("unknown member %s: the body may have %s", Quoted(name), strings.Join(names, ", "))
}

// syntaxOf says what is wrong with a JSON text.
func syntaxOf(err error) string {
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("%s, at byte %d", syntax, syntax.Offset)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "it ends too early"
	default:
		return err.Error()
	}
}

// kindOf names the kind of a JSON value by its first byte.
func kindOf(first byte) string {
	switch first {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	default:
		return "a number"
	}
}

// MaxQuoted bounds what an error repeats of what the client sent.
const MaxQuoted = 100

// Quoted shows what a client sent, cut to a readable length.
func Quoted(s string) string {
	if len(s) > MaxQuoted {
		return strconv.Quote(s[:MaxQuoted]) + "…"
	}
	return strconv.Quote(s)
}

// QueryParser reads the parameters of a request: query or publicQuery.
type QueryParser func(r *http.Request, known ...string) (map[string]string, error)

// Query reads the parameters of a request. Only those named are known, each may
// come once, and none may be empty.
func Query(r *http.Request, known ...string) (map[string]string, error) {
	return parseQuery(r.URL.RawQuery, known)
}

// PublicQuery is query for reads without a key: unknown parameters are ignored, as on a
// PDS, whatever they are.
func PublicQuery(r *http.Request, known ...string) (map[string]string, error) {
	return parseQuery(OnlyKnown(r.URL.RawQuery, known), known)
}

// OnlyKnown is a raw query without the parameters that are not known. They need not even
// be well-formed.
func OnlyKnown(raw string, known []string) string {
	var kept []string
	for pair := range strings.SplitSeq(raw, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if name, err := url.QueryUnescape(name); err == nil && slices.Contains(known, name) {
			kept = append(kept, pair)
		}
	}
	return strings.Join(kept, "&")
}

func parseQuery(raw string, known []string) (map[string]string, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, BadRequest("the query cannot be read: %s", err)
	}
	params := make(map[string]string, len(values))
	for name, list := range values {
		switch {
		case len(known) == 0:
			return nil, BadRequest("unknown parameter %s: this route takes none", Quoted(name))
		case !slices.Contains(known, name):
			return nil, BadRequest("unknown parameter %s: this route takes %s", Quoted(name), strings.Join(known, ", "))
		case len(list) > 1:
			return nil, BadRequest("%s is given twice", name)
		case list[0] == "":
			return nil, BadRequest("%s is empty: leave it out instead", name)
		}
		params[name] = list[0]
	}
	return params, nil
}

// LimitOf reads a limit parameter.
func LimitOf(text string, standard, most int) (int, error) {
	if text == "" {
		return standard, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, BadRequest("limit must be a number from 1 to %d, it is %s", most, Quoted(text))
	}
	return n, nil
}
