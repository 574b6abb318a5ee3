package cmd

import (
	"strings"

	"github.com/spf13/cobra"
)

// explain gives a command's help its exit codes, and its errors about arguments the
// words of its own.
func explain(cmd *cobra.Command) {
	if cmd.HasSubCommands() {
		return
	}
	if cmd.Long == "" {
		cmd.Long = cmd.Short + "."
	}
	cmd.Long += "\n\nExit codes: " + exitCodes(cmd)
	check := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if check(cmd, args) == nil {
			return nil
		}
		return usagef("%s takes %s: see %s --help", cmd.CommandPath(), arguments(cmd), cmd.CommandPath())
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

// opensDatabase tells whether a command works on the files of a data directory.
func opensDatabase(cmd *cobra.Command) bool {
	switch cmd.Name() {
	case "serve", "check", "compact", "rescue", "demo":
		return true
	default:
		return false
	}
}
