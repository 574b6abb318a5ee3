package server

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const (
	sourceFile    = "openapi/openapi.yaml"
	jsonFile      = "openapi/openapi.json"
	referenceFile = "../docs/api.md"
	// updateDocs makes the test write what it else compares.
	updateDocs = "UPDATE_DOCS"
)

func TestDocsAreMadeFromTheDescription(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile(sourceFile)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	var order struct {
		Paths      yaml.Node
		Components struct{ Schemas yaml.Node }
	}
	if err := yaml.Unmarshal(source, &doc); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(source, &order); err != nil {
		t.Fatal(err)
	}
	made, err := json.MarshalIndent(doc, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	p := apiPage{doc: doc, paths: keysOf(order.Paths), schemas: keysOf(order.Components.Schemas)}
	for file, want := range map[string]string{jsonFile: string(made) + "\n", referenceFile: p.text()} {
		if os.Getenv(updateDocs) != "" {
			if err := os.WriteFile(file, []byte(want), 0o644); err != nil { //nolint:gosec // they are published
				t.Fatal(err)
			}
			continue
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("%s is not what %s makes: run make docs (%v)", file, sourceFile, err)
		}
	}
}

// keysOf are the keys of a mapping in their order.
func keysOf(n yaml.Node) (keys []string) {
	for i := 0; i < len(n.Content); i += 2 {
		keys = append(keys, n.Content[i].Value)
	}
	return keys
}

// apiPage makes the reference page.
type apiPage struct {
	doc            map[string]any
	paths, schemas []string // in the order of the source
	out            strings.Builder
}

func (p *apiPage) line(format string, args ...any) { fmt.Fprintf(&p.out, format+"\n", args...) }

func (p *apiPage) text() string {
	info := object(p.doc["info"])
	p.line("<!-- Made from server/openapi/openapi.yaml by make docs. -->")
	p.line("# HTTP API\n\n%s", strings.TrimSpace(str(info["description"])))
	p.line("\nA running server describes itself as OpenAPI 3.1 at `/openapi.json`.")
	for _, tag := range list(p.doc["tags"]) {
		name := str(object(tag)["name"])
		p.line("\n## %s\n\n%s", name, str(object(tag)["description"]))
		for _, path := range p.paths {
			item := object(object(p.doc["paths"])[path])
			for _, method := range []string{"get", "post", "put", "patch", "delete"} {
				if op := object(item[method]); len(op) > 0 && slices.Contains(list(op["tags"]), any(name)) {
					p.operation(method, path, op, list(item["parameters"]))
				}
			}
		}
	}
	p.line("\n## Types")
	schemas := object(object(p.doc["components"])["schemas"])
	for _, name := range p.schemas {
		p.schema(name, object(schemas[name]))
	}
	return p.out.String()
}

func (p *apiPage) operation(method, path string, op map[string]any, shared []any) {
	p.line("\n### %s\n", str(op["summary"]))
	needs := "no key"
	for _, one := range list(op["security"]) {
		needs = "permission `" + str(list(object(one)["key"])[0]) + "`"
	}
	p.line("`%s %s` · %s", strings.ToUpper(method), path, needs)
	if d := str(op["description"]); d != "" {
		p.line("\n%s", strings.TrimSpace(d))
	}
	if params := slices.Concat(shared, list(op["parameters"])); len(params) > 0 {
		p.line("\n| parameter | in | type | |\n|---|---|---|---|")
		for _, one := range params {
			param := p.resolve(object(one))
			name := "`" + str(param["name"]) + "`"
			if param["required"] == true {
				name += " *"
			}
			p.line("| %s | %s | %s | %s |", name, str(param["in"]), p.kind(object(param["schema"])), p.about(param, object(param["schema"])))
		}
	}
	if body := object(object(object(op["requestBody"])["content"])["application/json"]); len(body) > 0 {
		p.line("\nBody: %s", p.kind(object(body["schema"])))
		p.members(object(body["schema"]))
		p.example(body)
	}
	p.line("\n| answer | | |\n|---|---|---|")
	responses := object(op["responses"])
	var inline []map[string]any
	var errs []string
	for _, status := range sortedKeys(responses) {
		response := p.resolve(object(responses[status]))
		if status >= "400" {
			if status != "default" {
				errs = append(errs, "`"+status+"`")
			}
			continue
		}
		body := ""
		for _, kind := range sortedKeys(object(response["content"])) {
			content := object(object(response["content"])[kind])
			body = p.kind(object(content["schema"]))
			if kind != "application/json" {
				body = "`" + kind + "`: " + body
			}
			if _, isRef := object(content["schema"])["$ref"]; !isRef || content["example"] != nil {
				inline = append(inline, content)
			}
		}
		p.line("| `%s` | %s | %s |", status, oneLine(str(response["description"])), body)
	}
	if len(errs) > 0 {
		p.line("| %s | An error. | |", strings.Join(errs, ", "))
	}
	for _, content := range inline {
		p.members(object(content["schema"]))
		p.example(content)
	}
}

// members shows the members of an object that has no name of its own.
func (p *apiPage) members(schema map[string]any) {
	if len(object(schema["properties"])) == 0 {
		return
	}
	p.properties(schema)
}

func (p *apiPage) properties(schema map[string]any) {
	props, required := object(schema["properties"]), list(schema["required"])
	p.line("\n| member | type | |\n|---|---|---|")
	for _, name := range sortedBy(props, required) {
		prop := object(props[name])
		label := "`" + name + "`"
		if !slices.Contains(required, any(name)) {
			label += " (may be missing)"
		}
		p.line("| %s | %s | %s |", label, p.kind(prop), p.about(prop, nil))
	}
}

func (p *apiPage) example(content map[string]any) {
	if example := content["example"]; example != nil {
		data, err := json.Marshal(example)
		if err != nil {
			panic(err)
		}
		p.line("\n```json\n%s\n```", data)
	}
}

func (p *apiPage) schema(name string, schema map[string]any) {
	p.line("\n### %s", name)
	if d := str(schema["description"]); d != "" {
		p.line("\n%s.", strings.TrimSuffix(oneLine(d), "."))
	}
	if len(object(schema["properties"])) > 0 {
		p.properties(schema)
		return
	}
	p.line("\n%s", p.kind(schema))
}

// kind is the type of a schema, in words.
func (p *apiPage) kind(schema map[string]any) string {
	if ref := str(schema["$ref"]); ref != "" {
		name := ref[strings.LastIndex(ref, "/")+1:]
		return fmt.Sprintf("[%s](#%s)", name, strings.ToLower(name))
	}
	for _, key := range []string{"anyOf", "enum"} {
		var parts []string
		for _, one := range list(schema[key]) {
			switch {
			case key == "anyOf":
				parts = append(parts, p.kind(object(one)))
			case one == nil:
				parts = append(parts, "null")
			default:
				parts = append(parts, "`"+str(one)+"`")
			}
		}
		if len(parts) > 0 {
			return strings.Join(parts, " or ")
		}
	}
	if c := schema["const"]; c != nil {
		return "`" + str(c) + "`"
	}
	var parts []string
	kinds := list(schema["type"])
	if one := str(schema["type"]); one != "" && len(kinds) == 0 {
		kinds = []any{one}
	}
	for _, one := range kinds {
		switch kind := str(one); {
		case kind == "array":
			parts = append(parts, "list of "+p.kind(object(schema["items"])))
		case kind == "string" && schema["format"] == "uuid":
			parts = append(parts, "UUID")
		default:
			parts = append(parts, kind)
		}
	}
	if more := object(schema["additionalProperties"]); len(more) > 0 {
		parts = []string{"object of " + p.inlineMembers(more)}
	} else if props := object(schema["properties"]); len(props) > 0 && str(schema["description"]) == "" {
		return p.inlineMembers(schema)
	}
	if len(parts) == 0 {
		return "anything"
	}
	return strings.Join(parts, " or ")
}

// inlineMembers shows a small object within a line.
func (p *apiPage) inlineMembers(schema map[string]any) string {
	var parts []string
	props := object(schema["properties"])
	for _, name := range sortedBy(props, list(schema["required"])) {
		parts = append(parts, "`"+name+"`: "+p.kind(object(props[name])))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// about is what is said of a member or parameter.
func (p *apiPage) about(of, schema map[string]any) string {
	if schema == nil {
		schema = of
	}
	parts := []string{}
	if d := oneLine(str(of["description"])); d != "" {
		parts = append(parts, d)
	}
	for _, key := range []string{"minimum", "maximum", "minItems", "maxItems", "maxLength", "default"} {
		if v, is := schema[key]; is && (key != "minimum" || v != 0) {
			parts = append(parts, fmt.Sprintf("%s %v", key, v))
		}
	}
	return strings.Join(parts, "; ")
}

func (p *apiPage) resolve(part map[string]any) map[string]any {
	ref, is := part["$ref"].(string)
	if !is {
		return part
	}
	at := p.doc
	for name := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
		at = object(at[name])
	}
	return at
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func object(v any) map[string]any { m, _ := v.(map[string]any); return m }

func list(v any) []any { l, _ := v.([]any); return l }

func str(v any) string {
	if v == nil {
		return ""
	}
	switch v.(type) {
	case string, bool, int:
		return fmt.Sprint(v)
	default:
		return ""
	}
}

func sortedKeys(m map[string]any) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// sortedBy are the keys in the order of a list, and then the others.
func sortedBy(m map[string]any, first []any) (keys []string) {
	for _, name := range first {
		keys = append(keys, str(name))
	}
	for _, k := range sortedKeys(m) {
		if !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys
}
