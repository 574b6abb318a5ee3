package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// commands are all that do something, by their path without the program's name.
func commands() map[string]*cobra.Command {
	all := map[string]*cobra.Command{}
	walkCommands((&program{}).newRoot(), func(cmd *cobra.Command) {
		if _, path, below := strings.Cut(cmd.CommandPath(), " "); below && !cmd.HasSubCommands() {
			all[path] = cmd
		}
	})
	return all
}

func TestEveryCommandHasExamplesThatWork(t *testing.T) {
	t.Parallel()
	for path, cmd := range commands() {
		help := want(t, exitOK, "Exit codes: 0 clean; 1 error", nil, append(strings.Fields(path), "--help")...)
		if !strings.Contains(help, "Examples:\n  appview "+path) {
			t.Errorf("%s --help has no example of it:\n%s", path, help)
		}
		if short := cmd.Short; strings.HasSuffix(short, ".") || short == "" || short[0] < 'A' || short[0] > 'Z' {
			t.Errorf("%s: %q", path, short)
		}
		for line := range strings.Lines(cmd.Example) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " | ")
			line, _, _ = strings.Cut(line, " > ")
			words := shellWords(line)
			root := (&program{}).newRoot()
			found, args, err := root.Find(words[1:])
			if err == nil && found.CommandPath() != "appview "+path {
				t.Errorf("%s: the example is one of %s", path, found.CommandPath())
			}
			if err == nil {
				err = found.ParseFlags(args)
			}
			if err == nil {
				err = found.ValidateArgs(found.Flags().Args())
			}
			if err != nil {
				t.Errorf("%s: %s: %v", path, line, err)
			}
		}
	}
}

func TestHelpFitsASmallTerminal(t *testing.T) {
	t.Parallel()
	walkCommands((&program{}).newRoot(), func(cmd *cobra.Command) {
		path := strings.Fields(cmd.CommandPath())[1:]
		help := want(t, exitOK, "Usage:", nil, append(path, "--help")...)
		lines := 0
		for line := range strings.Lines(help) {
			// An example is there to be copied.
			if line = strings.TrimRight(line, "\n"); !strings.Contains(cmd.Example, line) && len(line) > helpWidth {
				t.Errorf("%s --help: %q has %d columns", cmd.CommandPath(), line, len(line))
			}
			lines++
		}
		if lines < 5 {
			t.Errorf("%s --help has %d lines:\n%s", cmd.CommandPath(), lines, help)
		}
	})
}

// shellWords takes a command line apart as a shell does.
func shellWords(line string) (words []string) {
	for i, part := range strings.Split(line, `"`) {
		if i%2 == 1 {
			words = append(words, part)
			continue
		}
		words = append(words, strings.Fields(part)...)
	}
	return words
}

func TestFlagsOfOneNameAreOfOneKind(t *testing.T) {
	t.Parallel()
	kinds, texts := map[string]map[string]bool{}, map[string]bool{}
	for _, cmd := range commands() {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if kinds[f.Name] == nil {
				kinds[f.Name] = map[string]bool{}
			}
			kinds[f.Name][f.Value.Type()] = true
			if !texts[f.Usage] && (f.Usage == "" || strings.HasSuffix(f.Usage, ".")) {
				t.Errorf("%s --%s: %q", cmd.CommandPath(), f.Name, f.Usage)
			}
			texts[f.Usage] = true
		})
	}
	for name, of := range kinds {
		// Several are read, several are tracked; one is chosen.
		if len(of) > 1 && name != "did" && name != "collection" {
			t.Errorf("--%s is of several kinds: %v", name, of)
		}
	}
}

// TestDocsNameOnlyWhatThereIs holds every command line and flag in the documentation
// to the program.
func TestDocsNameOnlyWhatThereIs(t *testing.T) {
	t.Parallel()
	flags := map[string]bool{}
	walkCommands((&program{}).newRoot(), func(cmd *cobra.Command) {
		cmd.InitDefaultHelpFlag()
		cmd.Flags().VisitAll(func(f *pflag.Flag) { flags["--"+f.Name] = true })
	})
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	lines, named := 0, 0
	for _, page := range append(pages, "../README.md", "../CHANGELOG.md", "../contrib/README.md") {
		text := read(t, page)
		for i, span := range strings.Split(text, "`") {
			span = strings.ReplaceAll(span, "\n", " ")
			flag, _, _ := strings.Cut(strings.Fields(span + " -")[0], "=")
			if i%2 == 0 || !strings.HasPrefix(flag, "--") {
				continue
			}
			if named++; !flags[flag] {
				t.Errorf("%s names %s, which there is not", page, flag)
			}
		}
		for _, line := range commandLines(text) {
			words := shellWords(line)[1:]
			lines++
			found, args, err := (&program{}).newRoot().Find(words)
			if err == nil && found.HasSubCommands() && len(args) > 0 && !strings.HasPrefix(args[0], "-") && found.Name() != "help" {
				err = fmt.Errorf("no command %s", args[0])
			}
			for _, arg := range args {
				if name, _, _ := strings.Cut(arg, "="); err == nil && strings.HasPrefix(name, "--") && found.Flag(name[2:]) == nil && name != "--help" {
					err = fmt.Errorf("no flag %s", name)
				}
			}
			if err != nil {
				t.Errorf("%s: %s: %v", page, line, err)
			}
		}
	}
	if lines < 40 || named < 40 {
		t.Errorf("%d command lines and %d flags were found: the test looks at too little", lines, named)
	}
}

// commandLines are the calls of the program in a page: in blocks and in the text.
func commandLines(page string) (lines []string) {
	add := func(line string) {
		_, after, chained := strings.Cut(line, "&& ")
		if chained {
			line = after
		}
		line, _, _ = strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "./"), " #")
		line, _, _ = strings.Cut(line, " | ")
		line, _, _ = strings.Cut(line, " > ")
		if rest, is := strings.CutPrefix(line, "appview "); is && !strings.ContainsAny(rest, "|") && !strings.HasPrefix(rest, "completion") {
			lines = append(lines, line)
		}
	}
	for i, part := range strings.Split(page, "\n```") {
		if i%2 == 1 {
			for line := range strings.Lines(part) {
				add(line)
			}
			continue
		}
		for n, span := range strings.Split(part, "`") {
			if n%2 == 1 {
				add(strings.ReplaceAll(span, "\n", " "))
			}
		}
	}
	return lines
}

func TestREADMENamesEveryCommandAndSetting(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(data), "\n## Commands\n")
	section, settings, _ := strings.Cut(section, "\n## Settings of `serve`\n")
	settings, _, _ = strings.Cut(settings, "\n## ")
	var named []string
	for i, part := range strings.Split(section, "`") {
		if i%2 == 0 || strings.HasPrefix(part, "-") {
			continue
		}
		group, below, isGroup := strings.Cut(strings.ReplaceAll(part, "\n", " "), " ")
		if !isGroup {
			named = append(named, group)
			continue
		}
		for one := range strings.SplitSeq(below, "|") {
			named = append(named, group+" "+one)
		}
	}
	all := commands()
	for path := range all {
		if !slices.Contains(named, path) {
			t.Errorf("README.md does not name the command %s", path)
		}
	}
	for _, path := range named {
		if all[path] == nil {
			t.Errorf("README.md names the command %s, which there is not", path)
		}
	}
	all["serve"].Flags().VisitAll(func(f *pflag.Flag) {
		if !strings.Contains(settings, "`--"+f.Name+"`") {
			t.Errorf("README.md does not name the setting --%s", f.Name)
		}
	})
}
