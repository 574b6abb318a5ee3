package cmd

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const (
	envPrefix   = "APPVIEW_"
	envAdminKey = "APPVIEW_ADMIN_KEY"
)

// envInjected begin the variables that container platforms set for a service
// called appview, and that shells set while they complete its command line.
var envInjected = []string{"APPVIEW_PORT", "APPVIEW_SERVICE_", "APPVIEW_ACTIVE_HELP", "APPVIEW_COMPLETION_"} //nolint:gochecknoglobals // a table that is never changed

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

// applyEnv sets the flags of cmd that were not given from their variables, and
// refuses variables that no flag knows: a mistyped one must not be ignored.
func (p *program) applyEnv(cmd *cobra.Command) error {
	var errs []error
	for _, pair := range p.environ {
		name, _, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, envPrefix) && !knownEnv(cmd.Root(), name) {
			errs = append(errs, usagef("unknown variable %s: those of the flags are shown by appview serve --help", name))
		}
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		for _, name := range f.Annotations[envAnnotation] {
			value := p.env(name)
			if f.Changed || value == "" {
				continue
			}
			if err := cmd.Flags().Set(f.Name, value); err != nil {
				errs = append(errs, usagef("%s: %w", name, explainValue(err)))
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

// knownEnv tells whether any command has a use for the variable.
func knownEnv(root *cobra.Command, name string) bool {
	if name == envAdminKey || slices.ContainsFunc(envInjected, func(p string) bool { return strings.HasPrefix(name, p) }) {
		return true
	}
	known := false
	root.LocalFlags().VisitAll(func(f *pflag.Flag) {
		known = known || slices.Contains(f.Annotations[envAnnotation], name)
	})
	return known || slices.ContainsFunc(root.Commands(), func(c *cobra.Command) bool { return knownEnv(c, name) })
}
