package server

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"appview/internal/api"
	"appview/server/answer"
	"appview/server/openapi"
)

const docURL = "https://appview.test/openapi.json"

// description is openapi.json as the tests use it.
type description struct {
	doc    map[string]any
	closed *jsonschema.Compiler // of the document in which objects may have no other members

	mu      sync.Mutex
	schemas map[string]*jsonschema.Schema
	given   map[string]bool // answers that some test was given: method, path and status
}

var theDescription = sync.OnceValue(func() *description { //nolint:gochecknoglobals // tests only
	d := &description{schemas: map[string]*jsonschema.Schema{}, given: map[string]bool{}}
	var open any
	for _, into := range []any{&d.doc, &open} {
		dec := json.NewDecoder(bytes.NewReader(openapi.Document()))
		dec.UseNumber()
		if err := dec.Decode(into); err != nil {
			panic(err)
		}
	}
	closeObjects(open)
	d.closed = jsonschema.NewCompiler()
	d.closed.AssertFormat()
	if err := d.closed.AddResource(docURL, open); err != nil {
		panic(err)
	}
	return d
})

// closeObjects lets objects have no members but those that are described: clients
// must allow for new ones, but nothing may be served that is not described.
func closeObjects(v any) {
	switch v := v.(type) {
	case map[string]any:
		if _, has := v["properties"].(map[string]any); has && v["additionalProperties"] == nil && v["type"] == "object" {
			v["additionalProperties"] = false
		}
		for _, one := range v {
			closeObjects(one)
		}
	case []any:
		for _, one := range v {
			closeObjects(one)
		}
	}
}

// at is the part of the description that a path of names leads to, through
// references. where is its place.
func (d *description) at(names ...string) (part map[string]any, where []string) {
	part, _ = d.doc, where
	for _, name := range names {
		next, is := part[name].(map[string]any)
		if !is {
			return nil, nil
		}
		part, where = next, append(where, name)
		if ref, is := part["$ref"].(string); is {
			part, where = d.at(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
		}
	}
	return part, where
}

// operation is what is described of a method on a path, and the path as described.
func (d *description) operation(method, path string) (names []string) {
	paths, _ := d.at("paths")
	best := ""
	for pattern := range paths {
		if matches(pattern, path) && (best == "" || !strings.Contains(pattern, "{")) {
			best = pattern
		}
	}
	if op, _ := d.at("paths", best, strings.ToLower(method)); op == nil {
		return nil
	}
	return []string{"paths", best, strings.ToLower(method)}
}

func matches(pattern, path string) bool {
	want, got := strings.Split(pattern, "/"), strings.Split(path, "/")
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		if want[i] != got[i] && (!strings.HasPrefix(want[i], "{") || got[i] == "") {
			return false
		}
	}
	return true
}

// validate checks JSON against the schema at a place.
func (d *description) validate(where []string, data string) error {
	pointer := ""
	for _, name := range where {
		pointer += "/" + url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(name))
	}
	d.mu.Lock()
	schema := d.schemas[pointer]
	if schema == nil {
		var err error
		if schema, err = d.closed.Compile(docURL + "#" + pointer); err != nil {
			d.mu.Unlock()
			return err
		}
		d.schemas[pointer] = schema
	}
	d.mu.Unlock()
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(data))
	if err != nil {
		return fmt.Errorf("%w: %s", err, data)
	}
	return schema.Validate(value)
}

// conforms fails the test if an answer is not what is described.
func (d *description) conforms(t *testing.T, method, target, body string, a result) {
	t.Helper()
	path, query, _ := strings.Cut(target, "?")
	if method == http.MethodOptions {
		return // what browsers ask beforehand
	}
	asked := method
	if method == http.MethodHead {
		asked = http.MethodGet
	}
	op := d.operation(asked, path)
	var response map[string]any
	var where []string
	switch {
	case op == nil && a.status < 400:
		t.Errorf("%s %s is answered with %d and not described", method, path, a.status)
		return
	case op == nil && strings.HasPrefix(path, answer.XRPCSpace):
		response, where = d.at("components", "responses", "XRPCError")
	case op == nil:
		response, where = d.at("components", "responses", "Error")
	default:
		status := strconv.Itoa(a.status)
		if response, where = d.at(append(op, "responses", status)...); response != nil {
			d.note(op, status)
		} else if a.status >= 400 {
			response, where = d.at(append(op, "responses", "default")...)
		}
	}
	if response == nil {
		t.Errorf("%s %s: an answer with %d is not described", method, path, a.status)
		return
	}
	headers, _ := response["headers"].(map[string]any)
	for name := range headers {
		header, _ := d.at(append(slices.Clone(where), "headers", name)...)
		if a.header.Get(name) == "" && header["required"] != false {
			t.Errorf("%s %s: %d has no header %s", method, path, a.status, name)
		}
	}
	if err := d.bodyConforms(method, response, where, a); err != nil {
		t.Errorf("%s %s: %d is not as described: %v\n%.300s", method, target, a.status, err, a.body)
	}
	if op == nil || a.status >= 300 {
		return
	}
	if err := d.requestConforms(op, query, body); err != nil {
		t.Errorf("%s %s: %s was accepted and is not as described: %v", method, target, body, err)
	}
}

func (d *description) bodyConforms(method string, response map[string]any, where []string, a result) error {
	content, _ := response["content"].(map[string]any)
	if method == http.MethodHead || a.header.Get("Content-Encoding") != "" {
		return nil
	}
	if len(content) == 0 {
		if a.body != "" {
			return fmt.Errorf("there is a body")
		}
		return nil
	}
	kind, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
	if content[kind] == nil {
		return fmt.Errorf("it is %s", kind)
	}
	where = append(slices.Clone(where), "content", kind, "schema")
	switch kind {
	case "application/json":
		return d.validate(where, a.body)
	case "application/x-ndjson":
		for line := range strings.Lines(a.body) {
			if err := d.validate(where, line); err != nil {
				return err
			}
		}
	}
	return nil
}

// requestConforms tells how a request that was accepted differs from what is described.
func (d *description) requestConforms(op []string, query, body string) error {
	if strings.HasPrefix(op[1], answer.AdminSpace) { // elsewhere unknown parameters are ignored
		params, err := url.ParseQuery(query)
		if err != nil {
			return err
		}
		for name := range params {
			if !slices.Contains(d.parameters(op), name) {
				return fmt.Errorf("parameter %s", name)
			}
		}
	}
	body = strings.TrimSpace(body)
	if body == "" || body == "{}" {
		return nil
	}
	if unread, _ := d.at(append(op, "requestBody", "content", "*/*")...); unread != nil {
		return nil // it is not looked at
	}
	schema, where := d.at(append(op, "requestBody", "content", "application/json", "schema")...)
	if schema == nil {
		return fmt.Errorf("a body")
	}
	return d.validate(where, body)
}

// parameters are the names of the query parameters of an operation.
func (d *description) parameters(op []string) (names []string) {
	part, _ := d.at(op...)
	list, _ := part["parameters"].([]any)
	for _, one := range list {
		p, _ := one.(map[string]any)
		if ref, is := p["$ref"].(string); is {
			p, _ = d.at(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
		}
		if name, is := p["name"].(string); is && p["in"] == "query" {
			names = append(names, name)
		}
	}
	return names
}

func (d *description) note(op []string, status string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.given[strings.ToUpper(op[2])+" "+op[1]+" "+status] = true
}

// notGiven lists the described answers that no test was given.
func (d *description) notGiven() (list []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	paths, _ := d.doc["paths"].(map[string]any)
	for path, item := range paths {
		methods, _ := item.(map[string]any)
		for method, op := range methods {
			if method == "parameters" {
				continue
			}
			operation, _ := op.(map[string]any)
			responses, _ := operation["responses"].(map[string]any)
			for status := range responses {
				key := strings.ToUpper(method) + " " + path + " " + status
				if status != "default" && !d.given[key] {
					list = append(list, key)
				}
			}
		}
	}
	slices.Sort(list)
	return list
}

// TestMain fails when something is described that no test has seen.
func TestMain(m *testing.M) {
	code := m.Run()
	filtered := slices.ContainsFunc([]string{"test.run", "test.skip", "test.list", "test.fuzz", "test.bench"}, func(name string) bool {
		return flag.Lookup(name).Value.String() != ""
	})
	if code == 0 && !filtered && !testing.Short() {
		if left := theDescription().notGiven(); len(left) > 0 {
			fmt.Fprintf(os.Stderr, "openapi.yaml describes answers that no test was given:\n%s\n", strings.Join(left, "\n"))
			code = 1
		}
	}
	os.Exit(code) //nolint:forbidigo // the only way to fail from here
}

// everything is a server that serves all there is.
func everything(t *testing.T) *rig {
	t.Helper()
	return newRig(t, withMetrics)
}

func withMetrics(c *Config) {
	c.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = w.Write([]byte("appview_x 1\n"))
	})
}

func TestEveryRouteIsDescribedAndTheOtherWayRound(t *testing.T) {
	t.Parallel()
	d, r := theDescription(), everything(t)
	want, got := map[string]api.Permission{}, map[string]api.Permission{}
	for _, rt := range r.server.routes() {
		want[rt.Method+" "+strings.TrimSuffix(rt.Path, "{$}")] = rt.Permission
	}
	paths, _ := d.at("paths")
	for path, item := range paths {
		methods, _ := item.(map[string]any)
		for method, op := range methods {
			if method == "parameters" {
				continue
			}
			operation, _ := op.(map[string]any)
			list, given := operation["security"].([]any)
			if !given || len(list) > 1 {
				t.Errorf("%s %s: say in security which permission it needs, or [] for none", method, path)
				continue
			}
			permission := api.Permission("")
			if len(list) == 1 {
				key, _ := list[0].(map[string]any)
				names, _ := key["key"].([]any)
				if len(names) != 1 {
					t.Errorf("%s %s needs %v", method, path, list)
					continue
				}
				permission = api.Permission(fmt.Sprint(names[0]))
			}
			got[strings.ToUpper(method)+" "+path] = permission
		}
	}
	for name, permission := range want {
		if p, is := got[name]; !is || p != permission {
			t.Errorf("%s needs %q: openapi.yaml says %q (described: %t)", name, permission, p, is)
		}
	}
	for name := range got {
		if _, is := want[name]; !is {
			t.Errorf("%s is described and not served", name)
		}
	}
}

func TestDescriptionIsOpenAPI(t *testing.T) {
	t.Parallel()
	c := jsonschema.NewCompiler()
	file, err := os.Open("openapi/testdata/oas-3.1-2026-08-03.json")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	meta, err := jsonschema.UnmarshalJSON(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.AddResource("https://spec.openapis.org/oas/3.1/schema/2026-08-03", meta); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("https://spec.openapis.org/oas/3.1/schema/2026-08-03")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(openapi.Document()))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(doc); err != nil {
		t.Error(err)
	}
	d, ids := theDescription(), map[string]bool{}
	walk(d.doc, nil, func(where []string, part map[string]any) {
		if ref, is := part["$ref"].(string); is {
			if target, _ := d.at(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...); target == nil {
				t.Errorf("%s: %s leads nowhere", where, ref)
			}
		}
		if id, is := part["operationId"].(string); is {
			if ids[id] {
				t.Errorf("two operations are called %s", id)
			}
			ids[id] = true
		}
		if example, is := part["example"]; is && part["schema"] != nil {
			text, err := json.Marshal(example)
			if err == nil {
				err = d.validate(append(slices.Clone(where), "schema"), string(text))
			}
			if err != nil {
				t.Errorf("%s: the example is not as described: %v", where, err)
			}
		}
	})
}

// walk visits every object of a document.
func walk(v any, where []string, visit func(where []string, part map[string]any)) {
	switch v := v.(type) {
	case map[string]any:
		visit(where, v)
		for _, name := range slices.Sorted(maps.Keys(v)) {
			walk(v[name], append(slices.Clone(where), name), visit)
		}
	case []any:
		for i, one := range v {
			walk(one, append(slices.Clone(where), strconv.Itoa(i)), visit)
		}
	}
}

func TestDescribedParametersAreKnown(t *testing.T) {
	t.Parallel()
	d, r := theDescription(), everything(t)
	id := r.create("{}").String()
	r.get("/admin/backfill/"+id+"?no-such-parameter=1").want(t, 400, "unknown parameter")
	for _, rt := range r.server.routes() {
		if strings.HasPrefix(rt.Path, answer.XRPCSpace) {
			continue // unknown parameters are ignored there, as on a PDS
		}
		for _, name := range d.parameters(d.operation(rt.Method, strings.TrimSuffix(rt.Path, "{$}"))) {
			path := strings.ReplaceAll(rt.Path, "{id}", id)
			r.do(rt.Method, path+"?"+name+"=", "").want(t, 400, name+" is empty")
		}
	}
}

func TestServersDescribeWhatTheyServe(t *testing.T) {
	t.Parallel()
	described := func(r *rig) map[string]any {
		a := r.do(http.MethodGet, "/openapi.json", "", "Authorization", "")
		var doc struct {
			OpenAPI string
			Info    struct{ Version string }
			Paths   map[string]any
		}
		if err := json.Unmarshal([]byte(a.body), &doc); err != nil || doc.OpenAPI != "3.1.0" || doc.Info.Version != "v-test" {
			t.Errorf("%v: %s %s", err, doc.OpenAPI, doc.Info.Version)
		}
		return doc.Paths
	}
	all := described(everything(t))
	less := described(newRig(t, func(c *Config) { c.NoPublicReads = true }))
	for _, path := range []string{"/metrics", "/api/records", "/xrpc/com.atproto.repo.getRecord"} {
		if all[path] == nil || less[path] != nil {
			t.Errorf("%s: described by a server that has it: %t, by one that has not: %t", path, all[path] != nil, less[path] != nil)
		}
	}
	if less["/admin/backfill/{id}"] == nil {
		t.Error("a job is not described")
	}
}
