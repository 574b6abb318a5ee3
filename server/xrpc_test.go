package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/multiformats/go-multibase"

	"appview/internal/api"
	"appview/store/index"
)

const (
	getRecord   = "/xrpc/com.atproto.repo.getRecord"
	listRecords = "/xrpc/com.atproto.repo.listRecords"
)

// wantXRPC fails unless the answer is an XRPC error of that name.
func (a result) wantXRPC(t *testing.T, status int, name, text string) {
	t.Helper()
	var e map[string]string
	if err := json.Unmarshal([]byte(a.body), &e); err != nil || a.status != status || e["error"] != name || !strings.Contains(e["message"], text) || len(e) != 2 {
		t.Errorf("got %d %s, want %d %s with %q", a.status, a.body, status, name, text)
	}
}

func TestGetRecordAnswersAsTheLexiconSays(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := text(t, "self", "hello")
	r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: {rec}})
	query := "?repo=" + string(alice) + "&collection=com.example.note&rkey=self"
	want := fmt.Sprintf(`{"uri":"at://%s/com.example.note/self","cid":"%s","value":{"text":"hello","$type":"com.example.note"}}`, alice, rec.Body.CID) + "\n"
	for _, q := range []string{query, query + "&cid=" + rec.Body.CID.String(), query + "&unknown=x"} {
		if a := r.do(http.MethodGet, getRecord+q, "", "Authorization", ""); a.status != 200 || a.body != want {
			t.Errorf("%s: %d %s, want %s", q, a.status, a.body, want)
		}
	}
	other := text(t, "self", "other").Body.CID.String()
	for q, text := range map[string]string{
		query + "&cid=" + other:                     "Could not locate record: at://" + string(alice) + "/com.example.note/self",
		strings.Replace(query, "self", "other", 1):  "Could not locate record: at://" + string(alice) + "/com.example.note/other",
		strings.Replace(query, "note", "other", 1):  "Could not locate record",
		strings.Replace(query, "alice", "nobod", 1): "Could not locate record",
	} {
		r.get(getRecord+q).wantXRPC(t, 400, "RecordNotFound", text)
	}
}

func TestRecordIsWantedWithACID(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := text(t, "self", "hello")
	r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: {rec}})
	hex, err := rec.Body.CID.StringOfBase(multibase.Base16)
	if err != nil {
		t.Fatal(err)
	}
	for cid, want := range map[string]string{
		rec.Body.CID.String(): "",
		hex:                   "",
		"bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzd0": "RecordNotFound", // nothing decodes these
		"mBcDxtdWx0aWhhc2g+":                                           "RecordNotFound",
		"7134036155352661643226414134664076":                           "RecordNotFound",
		"ABCDEFG=":                                                     "RecordNotFound",
		strings.Repeat("z", 256):                                       "RecordNotFound",
		"QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR":               "InvalidRequest", // version 0
		"QmWgbR6KwmVTfKJSrWfoJ4Zd9Kp6fXZ1qbZEL4BqPnUvAX":               "InvalidRequest",
		"Qm0000000000000000000000000000000000000000000":                "InvalidRequest",
		" bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi": "InvalidRequest",
		"bafy-bei":                "InvalidRequest",
		"abcdefg":                 "InvalidRequest",
		strings.Repeat("z", 257):  "InvalidRequest",
		strings.Repeat("z", 4000): "InvalidRequest",
	} {
		query := url.Values{"repo": {string(alice)}, "collection": {string(note)}, "rkey": {"self"}, "cid": {cid}}
		a := r.get(getRecord + "?" + query.Encode())
		if want == "" && a.status != http.StatusOK {
			t.Errorf("%s: %d %s", cid, a.status, a.body)
		} else if want != "" {
			a.wantXRPC(t, http.StatusBadRequest, want, "")
		}
	}
}

func TestListRecordsPagesBothWays(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.settle(bob, index.AccountActive, map[syntax.NSID][]index.Listed{note: texts(t, 3)})
	r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: texts(t, 130), status: texts(t, 2)})
	r.settle(carol, index.AccountActive, map[syntax.NSID][]index.Listed{note: texts(t, 3)})
	var want []string
	for _, l := range texts(t, 130) {
		want = append(want, "at://"+string(alice)+"/com.example.note/"+l.RKey.String())
	}
	base := listRecords + "?repo=" + string(alice) + "&collection=com.example.note"
	for limit, pages := range map[int]int{0: 3, 1: 130, 49: 3, 50: 3, 51: 3, 65: 2, 99: 2, 100: 2} {
		for _, reverse := range []bool{false, true} {
			query := fmt.Sprintf("%s&reverse=%t", base, reverse)
			if limit > 0 {
				query += fmt.Sprintf("&limit=%d", limit)
			}
			got := r.pages(query)
			flat := slices.Concat(got...)
			if reverse {
				slices.Reverse(flat)
			}
			if !slices.Equal(flat, want) || len(got) != pages {
				t.Errorf("limit %d, reverse %t: %d pages, want %d: %v", limit, reverse, len(got), pages, got)
			}
		}
	}
	var first api.Records
	r.get(base+"&limit=2&cursor=").decode(t, &first)
	if first.Cursor != "key0128" {
		t.Errorf("cursor %q is not the last record key", first.Cursor)
	}
	if a := r.get(strings.Replace(base, "note", "other", 1)); a.body != `{"records":[]}`+"\n" {
		t.Errorf("a collection without records: %s", a.body)
	}
}

func TestXRPCRequestsThatAreNotValid(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: texts(t, 2)})
	repo := "?repo=" + string(alice)
	get, list := "Invalid com.atproto.repo.getRecord params: ", "Invalid com.atproto.repo.listRecords params: "
	in := repo + "&collection=com.example.note"
	for path, text := range map[string]string{
		getRecord:                 get + `Missing required key "repo"`,
		getRecord + repo:          get + `Missing required key "collection"`,
		getRecord + in:            get + `Missing required key "rkey"`,
		getRecord + in + "&rkey=": get + `Missing required key "rkey"`,
		getRecord + repo + "&collection=note&rkey=a":                             get + `Invalid NSID (got "note")`,
		getRecord + in + "&rkey=a%20b":                                           get + `Invalid record key (got "a b")`,
		getRecord + in + "&rkey=..":                                              get + `Invalid record key (got "..")`,
		getRecord + in + "&rkey=a&rkey=b":                                        get + `Expected string value type (got ["a","b"])`,
		getRecord + in + "&rkey=key0001&cid=x":                                   get + `Invalid CID string (got "x")`,
		getRecord + in + "&rkey=a&cid=" + strings.Repeat("z", 4000):              get + `Invalid CID string (got "zzz`,
		getRecord + "?repo=DID:x&collection=com.example.note&rkey=a":             get + `Invalid AT identifier (got "DID:x")`,
		getRecord + "?repo=alice.example.com&collection=com.example.note&rkey=a": "repo must be a DID, not a handle",
		listRecords:        list + `Missing required key "repo"`,
		listRecords + repo: list + `Missing required key "collection"`,
		listRecords + "?repo=x&collection=com.example.note":                       list + `Invalid AT identifier (got "x")`,
		listRecords + "?repo=alice.example.com&collection=com.example.note":       "repo must be a DID, not a handle",
		listRecords + "?repo=did:web:unknown.example&collection=com.example.note": "Could not find repo: did:web:unknown.example",
		listRecords + in + "&limit=0":                                             list + "integer too small (minimum 1, got 0)",
		listRecords + in + "&limit=-1":                                            list + "integer too small (minimum 1, got -1)",
		listRecords + in + "&limit=101":                                           list + "integer too big (maximum 100, got 101)",
		listRecords + in + "&limit=ten":                                           list + `Expected integer value type (got "ten")`,
		listRecords + in + "&limit=1.5":                                           list + `Expected integer value type (got "1.5")`,
		listRecords + in + "&limit=%2B5":                                          list + `Expected integer value type (got "+5")`,
		listRecords + in + "&limit=1&limit=2":                                     list + `Expected integer value type (got ["1","2"])`,
		listRecords + in + "&reverse=maybe":                                       list + `Expected boolean value type (got "maybe")`,
		listRecords + in + "&reverse=1":                                           list + `Expected boolean value type (got "1")`,
		listRecords + in + "&cursor=a&cursor=b":                                   list + `Expected string value type (got ["a","b"])`,
		listRecords + in + "&limit=%zz":                                           list + "the query cannot be read",
	} {
		r.get(path).wantXRPC(t, 400, "InvalidRequest", text)
	}
}

func TestInactiveReposAreNamed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for account, name := range map[string]string{
		"deactivated": "RepoDeactivated", index.AccountTakenDown: "RepoTakendown", "suspended": "RepoSuspended",
		index.AccountNotFound: "RepoNotFound", "deleted": "RepoNotFound", "desynchronized": "RepoNotFound",
	} {
		r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: texts(t, 2)})
		r.settle(alice, account, nil)
		query := "?repo=" + string(alice) + "&collection=com.example.note"
		r.get(listRecords+query).wantXRPC(t, 400, name, string(alice))
		r.get(getRecord+query+"&rkey=key0001").wantXRPC(t, 400, name, string(alice))
		r.settle(alice, index.AccountActive, nil)
		if a := r.get(getRecord + query + "&rkey=key0001"); a.status != 200 {
			t.Errorf("%s, then active again: %d %s", account, a.status, a.body)
		}
	}
}

func TestUnknownXRPCMethods(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, path := range []string{"/xrpc/com.atproto.repo.describeRepo", "/xrpc/", "/xrpc/a/b"} {
		a := r.get(path)
		a.wantXRPC(t, 501, "MethodNotImplemented", "Method Not Implemented")
		if a.header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s cannot be read by other origins", path)
		}
	}
	r.do(http.MethodPost, getRecord, "").wantXRPC(t, 405, "InvalidRequest", "use GET, HEAD")
}

func TestPublicReadsCanBeTurnedOff(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *Config) { c.NoPublicReads = true })
	r.get(getRecord).wantXRPC(t, 501, "MethodNotImplemented", "")
	r.get(listRecords).wantXRPC(t, 501, "MethodNotImplemented", "")
	r.get("/api/records?collection=com.example.note").want(t, 404, "there is no route")
	if a := r.get("/admin/records?collection=com.example.note"); a.status != 200 {
		t.Errorf("admin: %d", a.status)
	}
}
