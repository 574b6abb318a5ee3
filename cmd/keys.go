package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"appview/cmd/service"
	"appview/cmd/term"
	"appview/internal/api"
)

func newKeysCommand(p *program) *cobra.Command {
	var o clientOptions
	cmd := group(&cobra.Command{
		Use:   "keys",
		Short: "Create, list and revoke API keys; replace a lost admin key",
		Long:  "Create, list and revoke the API keys of a running server; make a new admin key if it is lost.",
	})
	addClientFlags(cmd, &o)
	cmd.AddCommand(newCreateKeyCommand(p, &o), newListKeysCommand(p, &o), newRevokeKeyCommand(p, &o), newRescueCommand(&o))
	return cmd
}

func newCreateKeyCommand(p *program, o *clientOptions) *cobra.Command {
	var permissions []string
	var expires string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a key and print it: it is shown only this once",
		Long: `Create makes a key that may do what --permission says, and prints it on the standard
output. The server keeps only its hash: it cannot be shown again.

Permissions: ` + permissionList() + `,
and * for everything. A key can grant only what it holds itself.`,
		Example: `  appview keys create "the website" --permission stats:read,backfill:read --expires 90d`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(permissions) == 0 {
				return service.Usagef("say with --permission what the key may do: see appview keys create --help")
			}
			until, err := parseExpiry(expires, time.Now())
			if err != nil {
				return err
			}
			c, err := p.newClient(*o)
			if err != nil {
				return err
			}
			body, err := json.Marshal(api.KeyRequest{Name: args[0], Permissions: permissions, ExpiresAt: until})
			if err != nil {
				return fmt.Errorf("create key: %w", err)
			}
			answer, err := c.call(cmd.Context(), http.MethodPost, "/admin/api-keys", bytes.NewReader(body))
			if err != nil {
				return err
			}
			var k api.Key
			if err := decodeAnswer(answer, &k); err != nil {
				return err
			}
			return o.print(cmd, answer, func(w io.Writer) error {
				// Apart from each other, so that a script gets the key alone.
				if _, err := fmt.Fprintf(cmd.ErrOrStderr(), "key %s may do %s. It is shown only this once:\n", k.ID, strings.Join(k.Permissions, ", ")); err != nil {
					return err
				}
				_, err := fmt.Fprintln(w, k.Key)
				return err
			})
		},
	}
	cmd.Flags().StringSliceVar(&permissions, "permission", nil, "what it may do; may be repeated, or separated by commas")
	cmd.Flags().StringVar(&expires, "expires", "", "when it ceases to open anything: after 12h or 90d, or at 2030-01-31T00:00:00Z (default: never)")
	return cmd
}

func permissionList() string {
	var names []string
	for _, p := range api.Permissions() {
		names = append(names, string(p))
	}
	half := len(names) / 2
	return strings.Join(names[:half], ", ") + ",\n" + strings.Join(names[half:], ", ")
}

// parseExpiry reads a time, or how long it is until then in hours or days.
func parseExpiry(text string, now time.Time) (string, error) {
	if text == "" {
		return "", nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at.UTC().Format(time.RFC3339), nil
	}
	d, err := time.ParseDuration(text)
	if days, isDays := strings.CutSuffix(text, "d"); isDays {
		var n int
		n, err = strconv.Atoi(days)
		d = time.Duration(min(n, 100*366)) * 24 * time.Hour
	}
	if err != nil || d <= 0 {
		return "", service.Usagef("--expires %q is neither a time such as 2030-01-31T00:00:00Z nor a duration such as 12h or 90d", text)
	}
	return now.Add(d).UTC().Format(time.RFC3339), nil
}

// keyID is the id of the key that a command line names.
func (c *client) keyID(ctx context.Context, name string) (string, error) {
	return fullID(name, "keys", func() (ids []string, err error) {
		var list api.Keys
		if _, err = c.get(ctx, "/admin/api-keys", &list); err != nil {
			return nil, err
		}
		for _, k := range list.Keys {
			ids = append(ids, k.ID.String())
		}
		return ids, nil
	})
}

func newListKeysCommand(p *program, o *clientOptions) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the keys: what each may do, and when it was used last",
		Long:    "List the keys, newest first: what each may do, and when it was used last.",
		Example: `  appview keys list`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.newClient(*o)
			if err != nil {
				return err
			}
			var list api.Keys
			answer, err := c.get(cmd.Context(), "/admin/api-keys", &list)
			if err != nil {
				return err
			}
			return o.print(cmd, answer, func(w io.Writer) error {
				t := term.Table{Columns: []term.Column{
					term.ID("ID"), term.Whole("KEY"), term.Whole("STATE"), term.Whole("LAST USED"), term.Whole("EXPIRES"), term.Prose("NAME"), term.Prose("PERMISSIONS"),
				}}
				for _, k := range list.Keys {
					t.Add(k.ID.String(), k.Prefix+"…", string(k.State), term.Text(k.LastUsedAt, "never"), term.Text(k.ExpiresAt, "never"), k.Name, strings.Join(k.Permissions, " "))
				}
				if list.EnvironmentKey {
					t.Add(term.Unknown, envAdminKey, string(api.KeyUsable), term.Unknown, "never", "of the server's environment", "*")
				}
				return t.Print(w)
			})
		},
	}
}

func newRevokeKeyCommand(p *program, o *clientOptions) *cobra.Command {
	return &cobra.Command{
		Use:     "revoke ID",
		Short:   "Make a key open nothing any more, at once",
		Example: `  appview keys revoke 3e02a597`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.newClient(*o)
			if err != nil {
				return err
			}
			id, err := c.keyID(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if _, err := c.call(cmd.Context(), http.MethodDelete, "/admin/api-keys/"+url.PathEscape(id), nil); err != nil {
				return err
			}
			if o.json {
				return nil // as the server's answer: nothing
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "key %s is revoked\n", id)
			return err
		},
	}
}
