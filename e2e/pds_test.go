//go:build e2e

package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
)

const (
	adminPassword  = "e2e-admin"
	writesPerCall  = 200 // what applyWrites takes at once
	recordsPerPage = 100 // what listRecords gives at most
)

// pds is one real PDS.
type pds struct {
	endpoint
	did    string
	domain string // of its handles
}

// startPDS runs a PDS whose accounts' PLC operations are signed with rotation.
func startPDS(t *testing.T, parts *parts, name string, port int, plc endpoint, rotation *atcrypto.PrivateKeyK256) *pds {
	t.Helper()
	p := &pds{
		endpoint: endpoint("http://localhost:" + strconv.Itoa(port)),
		did:      "did:web:localhost%3A" + strconv.Itoa(port),
		domain:   "." + name + ".test",
	}
	// The PDS asks no server that is named by an address.
	plc = endpoint(strings.Replace(string(plc), "127.0.0.1", "localhost", 1))
	data := t.TempDir()
	env := []string{
		"PDS_PORT=" + strconv.Itoa(port),
		"PDS_HOSTNAME=localhost",
		"PDS_SERVICE_DID=" + p.did,
		"PDS_DEV_MODE=true",
		"PDS_DATA_DIRECTORY=" + data,
		"PDS_BLOBSTORE_DISK_LOCATION=" + filepath.Join(data, "blobs"),
		"PDS_BLOBSTORE_DISK_TMP_LOCATION=" + filepath.Join(data, "blobs-tmp"),
		"PDS_DID_PLC_URL=" + string(plc),
		"PDS_SERVICE_HANDLE_DOMAINS=" + p.domain,
		"PDS_INVITE_REQUIRED=false",
		"PDS_ACCEPTING_REPO_IMPORTS=true",
		"PDS_RATE_LIMITS_ENABLED=false",
		"PDS_ADMIN_PASSWORD=" + adminPassword,
		"PDS_JWT_SECRET=e2e-jwt-secret-of-" + name,
		"PDS_DPOP_SECRET=" + fmt.Sprintf("%064x", port),
		"PDS_PLC_ROTATION_KEY_K256_PRIVATE_KEY_HEX=" + fmt.Sprintf("%x", rotation.Bytes()),
		"LOG_ENABLED=true",
	}
	parts.node(t, name, env, "pds.mjs").ready(t, func(ctx context.Context) error {
		return p.get(ctx, "/xrpc/_health", nil, "", nil)
	})
	return p
}

func adminAuth() string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte("admin:"+adminPassword))
}

// account is one account and where it lives now.
type account struct {
	name  string
	did   string
	token string // of its session
	pds   *pds
}

func (a *account) auth() string { return bearer(a.token) }

func (p *pds) createAccount(ctx context.Context, name string) (*account, error) {
	a := &account{name: name, pds: p}
	return a, p.register(ctx, a, "", map[string]any{
		"handle": name + p.domain, "email": name + "@mail.test", "password": "password-of-" + name,
	})
}

// register makes the account that in describes and takes over its session.
func (p *pds) register(ctx context.Context, a *account, auth string, in map[string]any) error {
	var out struct {
		DID       string `json:"did"`
		AccessJWT string `json:"accessJwt"`
	}
	if err := p.post(ctx, "/xrpc/com.atproto.server.createAccount", auth, in, &out); err != nil {
		return fmt.Errorf("create account %s: %w", a.name, err)
	}
	a.did, a.token = out.DID, out.AccessJWT
	return nil
}

// write is one member of applyWrites' list.
type write map[string]any

func createWrite(collection, rkey string, value map[string]any) write {
	w := write{"$type": "com.atproto.repo.applyWrites#create", "collection": collection, "value": value}
	if rkey != "" {
		w["rkey"] = rkey
	}
	return w
}

func updateWrite(collection, rkey string, value map[string]any) write {
	return write{"$type": "com.atproto.repo.applyWrites#update", "collection": collection, "rkey": rkey, "value": value}
}

func deleteWrite(collection, rkey string) write {
	return write{"$type": "com.atproto.repo.applyWrites#delete", "collection": collection, "rkey": rkey}
}

// apply makes the writes, in as few commits as the PDS allows.
func (a *account) apply(ctx context.Context, writes ...write) error {
	for batch := range slices.Chunk(writes, writesPerCall) {
		// No validation: most of the lexicons are unknown to the PDS.
		in := map[string]any{"repo": a.did, "validate": false, "writes": batch}
		if err := a.pds.post(ctx, "/xrpc/com.atproto.repo.applyWrites", a.auth(), in, nil); err != nil {
			return fmt.Errorf("write to %s: %w", a.name, err)
		}
	}
	return nil
}

// uploadBlob stores a blob and returns the reference that a record may hold.
func (a *account) uploadBlob(ctx context.Context, blob []byte) (any, error) {
	var out struct {
		Blob any `json:"blob"`
	}
	err := a.pds.call(ctx, "POST", "/xrpc/com.atproto.repo.uploadBlob", a.auth(), "image/png", blob, &out)
	return out.Blob, err
}

// listed is a record as listRecords and the index's export both show it.
type listed struct {
	URI   string `json:"uri"`
	CID   string `json:"cid"`
	Value any    `json:"value"`
}

// records is every record of one collection of one repo, newest key first.
func (e endpoint) records(ctx context.Context, did, collection string) ([]listed, error) {
	var all []listed
	q := url.Values{"repo": {did}, "collection": {collection}, "limit": {strconv.Itoa(recordsPerPage)}}
	for {
		var page struct {
			Records []listed `json:"records"`
			Cursor  string   `json:"cursor"`
		}
		if err := e.get(ctx, "/xrpc/com.atproto.repo.listRecords", q, "", &page); err != nil {
			return nil, err
		}
		all = append(all, page.Records...)
		if page.Cursor == "" || len(page.Records) == 0 {
			return all, nil
		}
		q.Set("cursor", page.Cursor)
	}
}

// collections is the names of the collections that a repo has records in.
func (p *pds) collections(ctx context.Context, did string) ([]string, error) {
	var out struct {
		Collections []string `json:"collections"`
	}
	err := p.get(ctx, "/xrpc/com.atproto.repo.describeRepo", url.Values{"repo": {did}}, "", &out)
	return out.Collections, err
}

// active is the DIDs of the accounts that the PDS says are active.
func (p *pds) active(ctx context.Context) ([]string, error) {
	active := map[string]struct{}{}
	q := url.Values{"limit": {"1000"}}
	for {
		var page struct {
			Repos []struct {
				DID    string `json:"did"`
				Active bool   `json:"active"`
			} `json:"repos"`
			Cursor string `json:"cursor"`
		}
		if err := p.get(ctx, "/xrpc/com.atproto.sync.listRepos", q, "", &page); err != nil {
			return nil, err
		}
		for _, r := range page.Repos {
			if r.Active {
				active[r.DID] = struct{}{}
			}
		}
		if page.Cursor == "" || len(page.Repos) == 0 {
			return slices.Sorted(maps.Keys(active)), nil
		}
		q.Set("cursor", page.Cursor)
	}
}

func (a *account) deactivate(ctx context.Context) error {
	return a.pds.post(ctx, "/xrpc/com.atproto.server.deactivateAccount", a.auth(), map[string]any{}, nil)
}

func (a *account) activate(ctx context.Context) error {
	return a.pds.post(ctx, "/xrpc/com.atproto.server.activateAccount", a.auth(), nil, nil)
}

// takeDown applies or lifts a takedown of the whole account.
func (a *account) takeDown(ctx context.Context, applied bool) error {
	takedown := map[string]any{"applied": applied}
	if applied {
		takedown["ref"] = "e2e"
	}
	return a.pds.post(ctx, "/xrpc/com.atproto.admin.updateSubjectStatus", adminAuth(), map[string]any{
		"subject":  map[string]any{"$type": "com.atproto.admin.defs#repoRef", "did": a.did},
		"takedown": takedown,
	}, nil)
}

func (a *account) remove(ctx context.Context) error {
	return a.pds.post(ctx, "/xrpc/com.atproto.admin.deleteAccount", adminAuth(), map[string]any{"did": a.did}, nil)
}

// move takes the account to another PDS, the way an owner does it: an account
// made there with the old one's word, the repo carried over, the DID document
// pointed to the new place, then the switch.
func (a *account) move(ctx context.Context, to *pds, directory endpoint, rotation *atcrypto.PrivateKeyK256) error {
	old := *a
	var word struct {
		Token string `json:"token"`
	}
	q := url.Values{"aud": {to.did}, "lxm": {"com.atproto.server.createAccount"}}
	if err := old.pds.get(ctx, "/xrpc/com.atproto.server.getServiceAuth", q, old.auth(), &word); err != nil {
		return fmt.Errorf("move %s: leave to go: %w", a.name, err)
	}
	repo, err := old.pds.raw(ctx, "GET", "/xrpc/com.atproto.sync.getRepo?did="+url.QueryEscape(a.did), "", "", nil)
	if err != nil {
		return fmt.Errorf("move %s: repo: %w", a.name, err)
	}

	a.pds = to
	if err := to.register(ctx, a, bearer(word.Token), map[string]any{
		"did": a.did, "handle": a.name + to.domain, "email": a.name + "@mail.test", "password": "password-of-" + a.name,
	}); err != nil {
		return fmt.Errorf("move %s: %w", a.name, err)
	}
	if err := to.call(ctx, "POST", "/xrpc/com.atproto.repo.importRepo", a.auth(), "application/vnd.ipld.car", repo, nil); err != nil {
		return fmt.Errorf("move %s: import repo: %w", a.name, err)
	}
	var op map[string]any
	if err := to.get(ctx, "/xrpc/com.atproto.identity.getRecommendedDidCredentials", nil, a.auth(), &op); err != nil {
		return fmt.Errorf("move %s: new credentials: %w", a.name, err)
	}
	op["type"] = "plc_operation"
	if err := plcOperation(ctx, directory, rotation, a.did, op); err != nil {
		return fmt.Errorf("move %s: %w", a.name, err)
	}
	if err := a.activate(ctx); err != nil {
		return fmt.Errorf("move %s: activate: %w", a.name, err)
	}
	if err := old.deactivate(ctx); err != nil {
		return fmt.Errorf("move %s: deactivate the old place: %w", a.name, err)
	}
	return nil
}

// compact is a value on one line, for messages.
func compact(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
