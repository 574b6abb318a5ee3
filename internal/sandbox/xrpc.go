package sandbox

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox/encode"
)

const xrpcPrefix = "/xrpc/"

// The methods that parts offer.
const (
	MethodListRecords           = "com.atproto.repo.listRecords"
	methodGetRecord             = "com.atproto.repo.getRecord"
	MethodDescribeRepo          = "com.atproto.repo.describeRepo"
	MethodGetRepo               = "com.atproto.sync.getRepo"
	MethodGetProof              = "com.atproto.sync.getRecord"
	MethodGetRepoStatus         = "com.atproto.sync.getRepoStatus"
	MethodGetLatestCommit       = "com.atproto.sync.getLatestCommit"
	methodListRepos             = "com.atproto.sync.listRepos"
	methodListReposByCollection = "com.atproto.sync.listReposByCollection"
	methodListHosts             = "com.atproto.sync.listHosts"
	methodHealth                = "_health"
	// methodListCollections is the collection directory's own, outside of /xrpc.
	methodListCollections = "v1/listCollections"
)

// endpoint computes the answer to one request.
type endpoint func(query) answer

// query is what an endpoint is asked.
type query struct {
	values url.Values
	req    Request
	buf    *[]byte // memory for the body; what grows out of it is put back
}

// fail is an XRPC error.
func fail(status int, name, message string) answer {
	b := encode.String([]byte(`{"error":`), name)
	b = encode.String(append(b, `,"message":`...), message)
	return answer{status: status, contentType: contentJSON, body: append(b, '}')}
}

func failf(status int, name, format string, args ...any) answer {
	return fail(status, name, fmt.Sprintf(format, args...))
}

// broken is the answer when the sandbox itself fails.
func broken(err error) answer {
	return fail(http.StatusInternalServerError, "InternalServerError", err.Error())
}

func okJSON(body []byte) answer {
	return answer{status: http.StatusOK, contentType: contentJSON, body: body}
}

// The next functions check parameters as the reference PDS does, with its texts.
// Their second result is the refusal, or nil.

func (q query) required(name string) (string, *answer) {
	value := q.values.Get(name)
	if value == "" {
		a := failf(http.StatusBadRequest, "InvalidRequest", "Error: Params must have the property %q", name)
		return "", &a
	}
	return value, nil
}

func (q query) did() (syntax.DID, *answer) {
	value, refusal := q.required("did")
	if refusal != nil {
		return "", refusal
	}
	did, err := syntax.ParseDID(value)
	if err != nil {
		a := fail(http.StatusBadRequest, "InvalidRequest", "Error: did must be a valid did")
		return "", &a
	}
	return did, nil
}

// repo is a DID or a handle.
func (q query) repo() (string, *answer) {
	value, refusal := q.required("repo")
	if refusal != nil {
		return "", refusal
	}
	if _, err := syntax.ParseAtIdentifier(value); err != nil {
		a := fail(http.StatusBadRequest, "InvalidRequest", "Error: repo must be a valid did or a handle")
		return "", &a
	}
	return value, nil
}

func (q query) collection() (syntax.NSID, *answer) {
	value, refusal := q.required("collection")
	if refusal != nil {
		return "", refusal
	}
	nsid, err := syntax.ParseNSID(value)
	if err != nil {
		a := fail(http.StatusBadRequest, "InvalidRequest", "Error: collection must be a valid nsid")
		return "", &a
	}
	return nsid, nil
}

func (q query) rkey() (syntax.RecordKey, *answer) {
	value, refusal := q.required("rkey")
	if refusal != nil {
		return "", refusal
	}
	rkey, err := syntax.ParseRecordKey(value)
	if err != nil {
		a := fail(http.StatusBadRequest, "InvalidRequest", "Error: rkey must be a valid record key")
		return "", &a
	}
	return rkey, nil
}

func (q query) limit(usual, most int) (int, *answer) {
	value := q.values.Get("limit")
	if value == "" {
		return usual, nil
	}
	n, err := strconv.Atoi(value)
	var a answer
	switch {
	case err != nil:
		a = fail(http.StatusBadRequest, "InvalidRequest", "Error: limit must be an integer")
	case n < 1:
		a = fail(http.StatusBadRequest, "InvalidRequest", "Error: limit can not be less than 1")
	case n > most:
		a = failf(http.StatusBadRequest, "InvalidRequest", "Error: limit can not be greater than %d", most)
	default:
		return n, nil
	}
	return 0, &a
}

func (q query) boolean(name string) (bool, *answer) {
	switch q.values.Get(name) {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	}
	a := failf(http.StatusBadRequest, "InvalidRequest", "Error: %s must be a boolean", name)
	return false, &a
}
