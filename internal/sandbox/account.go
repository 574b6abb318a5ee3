package sandbox

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Status says whether an account is served, and if not, why.
type Status string

// The states of an account. Their names are those that hosts send.
const (
	StatusActive      Status = "active"
	StatusDeactivated Status = "deactivated"
	StatusTakendown   Status = "takendown"
	StatusSuspended   Status = "suspended"
	StatusDeleted     Status = "deleted"
)

// account is one repo with its identity. Everything below mu is guarded by it.
type account struct {
	did    syntax.DID
	handle string
	number int // in order of creation
	seed   int64

	mu         sync.RWMutex
	status     Status
	host       *host
	former     map[*host]*Head // hosts it moved away from, with the repo as it was; there it is deactivated
	tombstoned bool
	key        atcrypto.PrivateKey
	keyTurn    int
	document   []byte // DID document; nil when it has to be made again
	clock      clock
	counts     bool // its host counts: its revs are no times
	rev        syntax.TID
	shelves    map[syntax.NSID]*shelf // none is empty
	head       *Head                  // commit of rev; nil when it has to be made
}

// newAccount makes an active account with an empty repo.
func newAccount(seed int64, number int, h *host, born int64) *account {
	a := &account{
		did:     deriveDID(seed, number),
		handle:  fmt.Sprintf("user%d.sandbox.test", number),
		number:  number,
		seed:    seed,
		status:  StatusActive,
		host:    h,
		clock:   clock{micros: born, id: uint(number % 1024)},
		former:  make(map[*host]*Head),
		shelves: make(map[syntax.NSID]*shelf),
	}
	a.rev = a.clock.next()
	return a
}

// statusAt is what the host would say of the account: a host that it moved away
// from says deactivated, one that never had it, or had it deleted, says nothing.
func (a *account) statusAt(h *host) (Status, bool) {
	if a.status == StatusDeleted {
		return "", false
	}
	if a.host == h {
		return a.status, true
	}
	_, left := a.former[h]
	return StatusDeactivated, left
}

// collections are the sorted names of the collections that have records.
func (a *account) collections() []syntax.NSID {
	return slices.Sorted(maps.Keys(a.shelves))
}

// put stores a record, or removes the one with the key if r is nil.
func (a *account) put(collection syntax.NSID, rkey syntax.RecordKey, r *record) {
	s := a.shelves[collection]
	if r != nil {
		if s == nil {
			s = &shelf{}
			a.shelves[collection] = s
		}
		s.put(r)
		return
	}
	if s == nil {
		return
	}
	if s.remove(rkey); len(s.records) == 0 {
		delete(a.shelves, collection)
	}
}

func (a *account) records() int {
	n := 0
	for _, s := range a.shelves {
		n += len(s.records)
	}
	return n
}

// signingKey is made when it is first needed: most accounts of a large world
// never are asked for it. The caller holds mu for writing.
func (a *account) signingKey() (atcrypto.PrivateKey, error) {
	if a.key == nil {
		key, err := deriveKey(a.seed, a.number, a.keyTurn)
		if err != nil {
			return nil, err
		}
		a.key = key
	}
	return a.key, nil
}

// didDocument is the account's DID document, or false if the DID is tombstoned.
func (a *account) didDocument() ([]byte, bool, error) {
	a.mu.RLock()
	document, gone := a.document, a.tombstoned
	a.mu.RUnlock()
	if gone || document != nil {
		return document, !gone, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	key, err := a.signingKey()
	if err != nil {
		return nil, true, err
	}
	public, err := key.PublicKey()
	if err != nil {
		return nil, true, fmt.Errorf("public key of %s: %w", a.did, err)
	}
	suite := "https://w3id.org/security/suites/secp256k1-2019/v1"
	if _, ok := key.(*atcrypto.PrivateKeyP256); ok {
		suite = "https://w3id.org/security/suites/ecdsa-2019/v1"
	}
	a.document = fmt.Appendf(nil, `{"@context":["https://www.w3.org/ns/did/v1","https://w3id.org/security/multikey/v1",%q],`+
		`"id":%q,"alsoKnownAs":["at://%s"],`+
		`"verificationMethod":[{"id":"%s#atproto","type":"Multikey","controller":%q,"publicKeyMultibase":%q}],`+
		`"service":[{"id":"#atproto_pds","type":"AtprotoPersonalDataServer","serviceEndpoint":%q}]}`,
		suite, a.did, a.handle, a.did, a.did, public.Multibase(), a.host.url)
	return a.document, !a.tombstoned, nil
}
