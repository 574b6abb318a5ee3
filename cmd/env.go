package cmd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"appview/cmd/service"
)

const (
	envPrefix   = "APPVIEW_"
	envAdminKey = "APPVIEW_ADMIN_KEY"
)

// envOfShells begin the variables that shells set while they complete a command line.
var envOfShells = []string{"APPVIEW_ACTIVE_HELP", "APPVIEW_COMPLETION_"} //nolint:gochecknoglobals // a table that is never changed

// envInjected are the variables that container platforms set for every service whose name
// begins with appview, such as appview-metrics. No setting may have such a name.
var envInjected = regexp.MustCompile(`^APPVIEW_(\w*_)?(PORT|SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)$`) //nolint:gochecknoglobals // a table that is never changed

// fileSuffix ends the variable that names a file in place of a value.
const fileSuffix = "_FILE"

// maxSecretFile bounds a file that holds a secret.
const maxSecretFile = 64 << 10

// isSecret reports whether the value of a variable is one that a file may hold.
func isSecret(name string) bool { return name == envAdminKey || name == envName("key") }

// envAnnotation marks the flags that have a variable.
const envAnnotation = "appview_env"

// envName is the variable of a flag.
func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// configurable gives flags of cmd their variable. Only what configures a whole
// installation has one: a variable meant for the server must not narrow what a
// command lists, or exports.
func configurable(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		f := cmd.Flag(name)
		f.Usage += " [" + envName(name) + "]"
		f.Annotations = map[string][]string{envAnnotation: {envName(name)}}
	}
}

// env is the value of a variable.
func (p *program) env(name string) string {
	for _, pair := range p.environ {
		if n, value, _ := strings.Cut(pair, "="); n == name {
			return value
		}
	}
	return ""
}

// secret is the value of a variable, or what stands in the file that its twin names. That
// file is the operator's: it may be a link, and readable by others, as those of Docker and
// Kubernetes are.
func (p *program) secret(name string) (string, error) {
	value, path := p.env(name), p.env(name+fileSuffix)
	switch {
	case path == "":
		return value, nil
	case value != "":
		return "", service.Usagef("%s and %s are both set: one of them must go", name, name+fileSuffix)
	}
	data, err := readSome(path, maxSecretFile)
	if err != nil {
		return "", service.Usagef("%s: %w", name+fileSuffix, err)
	}
	if value = strings.TrimSpace(string(data)); value == "" {
		return "", service.Usagef("%s: %s is empty", name+fileSuffix, path)
	}
	return value, nil
}

// readSome reads a file of at most so many bytes.
func readSome(path string, limit int64) (data []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err = io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is longer than %d KiB", path, limit>>10)
	}
	return data, err
}

// value is what a variable sets a flag to.
func (p *program) value(name string) (string, error) {
	if isSecret(name) {
		return p.secret(name)
	}
	return p.env(name), nil
}

// applyEnv sets the flags of cmd that were not given from their variables, and
// refuses variables that no flag knows: a mistyped one must not be ignored.
func (p *program) applyEnv(cmd *cobra.Command) error {
	var errs []error
	for _, pair := range p.environ {
		name, _, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, envPrefix) && !knownEnv(cmd.Root(), name) {
			errs = append(errs, service.Usagef("unknown variable %s: those of the flags are shown by appview serve --help", name))
		}
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		for _, name := range f.Annotations[envAnnotation] {
			if f.Changed {
				continue
			}
			value, err := p.value(name)
			if err != nil {
				errs = append(errs, err)
			}
			if value == "" {
				continue
			}
			if err := cmd.Flags().Set(f.Name, value); err != nil {
				errs = append(errs, service.Usagef("%s: %w", name, explainValue(err)))
			}
		}
	})
	return errors.Join(errs...)
}

// explainValue says of a flag's value what it must be, not what did not parse it.
func explainValue(err error) error {
	bad, is := errors.AsType[*pflag.InvalidValueError](err)
	if !is {
		return err
	}
	what, known := map[string]string{
		"int": "a whole number", "int64": "a whole number", "float64": "a number", "duration": "a duration such as 90s, 30m or 24h", "bool": "true or false",
	}[bad.GetFlag().Value.Type()]
	if !known {
		return err
	}
	return fmt.Errorf("--%s is %q, it must be %s", bad.GetFlag().Name, bad.GetValue(), what)
}

// knownEnv reports whether any command has a use for the variable, or others set it.
func knownEnv(root *cobra.Command, name string) bool {
	if base, ok := strings.CutSuffix(name, fileSuffix); ok && isSecret(base) {
		return true
	}
	if name == envAdminKey || envInjected.MatchString(name) || slices.ContainsFunc(envOfShells, func(p string) bool { return strings.HasPrefix(name, p) }) {
		return true
	}
	known := false
	root.LocalFlags().VisitAll(func(f *pflag.Flag) {
		known = known || slices.Contains(f.Annotations[envAnnotation], name)
	})
	return known || slices.ContainsFunc(root.Commands(), func(c *cobra.Command) bool { return knownEnv(c, name) })
}
