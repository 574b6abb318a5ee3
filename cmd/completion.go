package cmd

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"appview/internal/api"
)

// addCompletions lets shells complete the values that are always the same, and names of
// files where a file is wanted. What a server holds is not offered.
func addCompletions(root *cobra.Command) {
	walkCommands(root, func(cmd *cobra.Command) {
		switch {
		case cmd.HasSubCommands(): // cobra offers these
		case cmd.Name() == "backup", cmd.Name() == "check": // files
		default:
			cmd.ValidArgsFunction = cobra.NoFileCompletions
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) { completeFlag(cmd, f) })
	})
}

// walkCommands visits root and everything below it.
func walkCommands(root *cobra.Command, visit func(*cobra.Command)) {
	visit(root)
	for _, cmd := range root.Commands() {
		walkCommands(cmd, visit)
	}
}

// completeFlag lets the value of a flag be completed.
func completeFlag(cmd *cobra.Command, f *pflag.Flag) {
	var complete cobra.CompletionFunc
	switch f.Name {
	case "state":
		complete = fixed(api.RepoStates()...)
	case "status":
		complete = fixed(api.Statuses()...)
	case "order":
		complete = fixed("indexed", "rkey")
	case "records":
		complete = fixed(api.KeepRecords, api.DeleteRecords)
	case "permission":
		complete = permissionOffers
	case "log-level":
		complete = fixed("debug", "info", "warn", "error")
	case "log-format":
		complete = fixed("text", "json")
	case "data-dir":
		complete = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		}
	case "output", "dids-file":
		return // files
	default:
		complete = cobra.NoFileCompletions
	}
	// It fails only for a flag that is not there, or has got a function already.
	_ = cmd.RegisterFlagCompletionFunc(f.Name, complete)
}

// fixed offers always the same.
func fixed[S ~string](values ...S) cobra.CompletionFunc {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = string(v)
	}
	return cobra.FixedCompletions(texts, cobra.ShellCompDirectiveNoFileComp)
}

// permissionOffers completes the last one of a list of permissions.
func permissionOffers(_ *cobra.Command, _ []string, begun string) (list []string, _ cobra.ShellCompDirective) {
	before := begun[:strings.LastIndex(begun, ",")+1]
	for _, p := range api.Permissions() {
		if one := before + string(p); strings.HasPrefix(one, begun) {
			list = append(list, one)
		}
	}
	return list, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}
