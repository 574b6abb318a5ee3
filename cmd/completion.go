package cmd

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"appview/server"
)

// completionTime is how long a server may take to tell what fits: somebody waits
// at the keyboard.
const completionTime = time.Second

// completionsShown bounds what is offered at once.
const completionsShown = 100

// offer is something that may stand on a command line, with what it is.
type offer struct{ value, what string }

// offers finds what fits. Its error means that there is nothing to offer.
type offers func(ctx context.Context, c *client) ([]offer, error)

// addCompletions lets shells complete what the commands below root take. What the
// running server knows is asked of it; without one nothing is offered, and nothing
// is said.
func (p *program) addCompletions(root *cobra.Command) {
	args := map[string]offers{
		"backfill show":      jobOffers(nil),
		"backfill watch":     jobOffers(nil),
		"backfill repos":     jobOffers(nil),
		"backfill hosts":     jobOffers(nil),
		"backfill report":    jobOffers(nil),
		"backfill cancel":    jobOffers(func(j jobView) bool { return !j.final() && j.Status != "cancelling" }),
		"backfill pause":     jobOffers(func(j jobView) bool { return j.Status == "running" }),
		"backfill resume":    jobOffers(func(j jobView) bool { return j.Status == "paused" }),
		"backfill retry":     jobOffers(jobView.final),
		"collections add":    collectionOffers(true, false),
		"collections remove": collectionOffers(false, true),
		"denylist remove":    deniedOffers,
		"keys revoke":        keyOffers,
	}
	walkCommands(root, func(cmd *cobra.Command) {
		_, path, _ := strings.Cut(cmd.CommandPath(), " ")
		switch find, known := args[path]; {
		case known:
			cmd.ValidArgsFunction = p.completeOne(find)
		case cmd.HasSubCommands(): // cobra offers these
		case path == "backup", path == "check": // files
		default:
			cmd.ValidArgsFunction = cobra.NoFileCompletions
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) { p.completeFlag(cmd, f) })
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
func (p *program) completeFlag(cmd *cobra.Command, f *pflag.Flag) {
	var complete cobra.CompletionFunc
	switch f.Name {
	case "collection":
		complete = p.complete(collectionOffers(true, cmd.Name() == "create" || cmd.Name() == "plan"))
	case "state":
		complete = fixed("pending", "done", "empty", "unavailable", "failed")
	case "status":
		complete = p.complete(statusOffers)
	case "order":
		complete = fixed("indexed", "rkey")
	case "records":
		complete = fixed("keep", "delete")
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
func fixed(values ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
}

// completeOne completes the only argument of a command.
func (p *program) completeOne(find offers) cobra.CompletionFunc {
	complete := p.complete(find)
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, begun)
	}
}

// complete offers what the running server knows.
func (p *program) complete(find offers) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		var fitting []string
		for _, o := range p.offered(ctx, cmd, find) {
			if strings.HasPrefix(o.value, begun) && len(fitting) < completionsShown {
				fitting = append(fitting, o.value+"\t"+plain(o.what))
			}
		}
		return fitting, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	}
}

// offered asks the server that the command line names so far. Whatever is wrong is
// said when the command is run.
func (p *program) offered(ctx context.Context, cmd *cobra.Command, find offers) []offer {
	if p.applyEnv(cmd) != nil {
		return nil
	}
	o := clientOptions{url: flagValue(cmd, "url"), key: flagValue(cmd, "key"), dataDir: flagValue(cmd, "data-dir")}
	c, err := p.newClient(o)
	if err != nil {
		return nil
	}
	list, err := find(ctx, c)
	if err != nil {
		return nil
	}
	return list
}

// flagValue is the value of a flag, empty if the command has none of the name.
func flagValue(cmd *cobra.Command, flag string) string {
	if f := cmd.Flag(flag); f != nil {
		return f.Value.String()
	}
	return ""
}

// jobOffers are jobs, the newest first, or some of them.
func jobOffers(want func(jobView) bool) offers {
	return func(ctx context.Context, c *client) (list []offer, err error) {
		var jobs []jobView
		if _, err = c.get(ctx, withQuery("/admin/backfill/status", "limit", fmt.Sprint(10*completionsShown)), &jobs); err != nil {
			return nil, err
		}
		for _, j := range jobs {
			if want == nil || want(j) {
				list = append(list, offer{j.ID, fmt.Sprintf("%s, %s, %s", j.phase(), j.covers(), j.CreatedAt)})
			}
		}
		return list, nil
	}
}

// statusOffers are the statuses that there are jobs of.
func statusOffers(ctx context.Context, c *client) (list []offer, err error) {
	var jobs []jobView
	if _, err = c.get(ctx, "/admin/backfill/status", &jobs); err != nil {
		return nil, err
	}
	counts := map[string]int64{}
	for _, j := range jobs {
		counts[j.Status]++
	}
	for _, status := range slices.Sorted(maps.Keys(counts)) {
		n := counts[status]
		list = append(list, offer{status, number(&n) + " jobs"})
	}
	return list, nil
}

// collectionOffers are the collections of which the index holds records, those that
// are tracked, or both.
func collectionOffers(held, tracked bool) offers {
	return func(ctx context.Context, c *client) (list []offer, err error) {
		var st statsView
		if _, err = c.get(ctx, "/admin/stats", &st); err != nil {
			return nil, err
		}
		var names []string
		if held {
			names = slices.Collect(maps.Keys(st.Collections))
		}
		if tracked {
			names = append(names, st.Tracked...)
		}
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			n := st.Collections[name].Records
			what := number(&n) + " records"
			if slices.Contains(st.Tracked, name) {
				what += ", tracked"
			}
			list = append(list, offer{name, what})
		}
		return list, nil
	}
}

// deniedOffers are the entries of the deny list.
func deniedOffers(ctx context.Context, c *client) (list []offer, err error) {
	var denied denialList
	if _, err = c.get(ctx, "/admin/denylist", &denied); err != nil {
		return nil, err
	}
	for _, d := range denied.Entries {
		list = append(list, offer{d.Entry, text(d.Reason, "")})
	}
	return list, nil
}

// keyOffers are the keys that still open something.
func keyOffers(ctx context.Context, c *client) (list []offer, err error) {
	var keys keyList
	if _, err = c.get(ctx, "/admin/api-keys", &keys); err != nil {
		return nil, err
	}
	for _, k := range keys.Keys {
		if k.State == "usable" {
			list = append(list, offer{k.ID, k.Name + ": " + strings.Join(k.Permissions, " ")})
		}
	}
	return list, nil
}

// permissionOffers completes the last one of a list of permissions.
func permissionOffers(_ *cobra.Command, _ []string, begun string) (list []string, _ cobra.ShellCompDirective) {
	before := begun[:strings.LastIndex(begun, ",")+1]
	for _, p := range server.Permissions() {
		if one := before + string(p); strings.HasPrefix(one, begun) {
			list = append(list, one)
		}
	}
	return list, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}
