package cmd

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"appview/cmd/service"
	"appview/cmd/term"
)

// helpWidth is how many columns a help text takes at most: as many as the smallest
// terminals have.
const helpWidth = 80

// fitted is cobra's own text about how to use a command, with flags that fit.
func fitted(template string) string {
	return strings.ReplaceAll(template, "FlagUsages ", "FlagUsagesWrapped "+strconv.Itoa(helpWidth)+" ")
}

// fold breaks the lines of paragraphs between words. What is indented, or follows
// what is, stays as it was written.
func fold(text string) string {
	paragraphs := strings.Split(text, "\n\n")
	for i, p := range paragraphs {
		if !strings.HasPrefix(p, "\t") && !strings.Contains(p, "\n\t") && !strings.Contains(p, "\n#") {
			paragraphs[i] = strings.Join(term.Wrap(p, helpWidth), "\n")
		}
	}
	return strings.Join(paragraphs, "\n\n")
}

// explain gives a command's help its exit codes, and its errors about arguments the
// words of its own.
func explain(cmd *cobra.Command) {
	if cmd.HasSubCommands() {
		if cmd.HasParent() {
			cmd.Long = fold(cmd.Long)
		}
		return
	}
	if cmd.Long == "" {
		cmd.Long = cmd.Short + "."
	}
	cmd.Long = fold(cmd.Long + "\n\nExit codes: " + exitCodes(cmd))
	check := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if check(cmd, args) == nil {
			return nil
		}
		return service.Usagef("%s takes %s: see %s --help", cmd.CommandPath(), arguments(cmd), cmd.CommandPath())
	}
}

// arguments are what a command takes beside flags.
func arguments(cmd *cobra.Command) string {
	_, args, _ := strings.Cut(cmd.Use, " ")
	args, _, _ = strings.Cut(args, " --")
	if args == "" {
		return "no arguments"
	}
	return args
}

// exitCodes are those that a command can end with.
func exitCodes(cmd *cobra.Command) string {
	failed := "1 error"
	switch {
	case cmd.Flags().Lookup("watch") != nil:
		failed = "1 error, or with --watch a job that fails or is cancelled"
	case cmd.Name() == "watch":
		failed = "1 error, or a job that fails or is cancelled"
	case cmd.Flags().Lookup("exit") != nil:
		failed = "1 error, or with --exit an index that is not exact"
	}
	codes := []string{"0 clean", failed, "2 usage"}
	if opensDatabase(cmd) {
		codes = append(codes, "3 another process has the database", "4 the database cannot be read, or is newer than the program")
	}
	if cmd.Name() == "backup" {
		codes = append(codes, "4 the copy is not consistent")
	}
	return strings.Join(append(codes, "130 second signal"), "; ") + "."
}

// opensDatabase reports whether a command works on the files of a data directory.
func opensDatabase(cmd *cobra.Command) bool {
	switch cmd.Name() {
	case "serve", "check", "compact", "rescue", "demo":
		return true
	default:
		return false
	}
}
