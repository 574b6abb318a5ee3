package control

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"appview/internal/api"
	"appview/server/answer"
	"appview/store"
	"appview/store/index"
)

// maxReason is the longest reason of a denial, in bytes.
const maxReason = 1000

func newDenialBody(d index.Denial) api.Denial {
	return api.Denial{Entry: d.Entry, Reason: api.Known(d.Reason, d.Reason != ""), AddedAt: api.Stamp(d.AddedAt)}
}

func (ctl *Control) listDenials(r *http.Request) (answer.Reply, error) {
	if _, err := answer.Query(r); err != nil {
		return answer.Reply{}, err
	}
	list, err := ctl.cfg.Store.Index.Denials(r.Context())
	if err != nil {
		return answer.Reply{}, err
	}
	body := api.Denials{Entries: make([]api.Denial, len(list))}
	for i, d := range list {
		body.Entries[i] = newDenialBody(d)
	}
	return answer.OK(body), nil
}

// addDenial puts an entry on the deny list, or gives it another reason. It answers
// when nothing is left of what the entry stands for. A server that stops does not
// wait for that: the next start goes on.
func (ctl *Control) addDenial(r *http.Request) (answer.Reply, error) {
	if _, err := answer.Query(r); err != nil {
		return answer.Reply{}, answer.BadRequest("%s: the entry goes in the body", err)
	}
	var text, reason string
	if err := answer.DecodeBody(r.Body, answer.Optional("entry", &text), answer.Optional("reason", &reason)); err != nil {
		return answer.Reply{}, err
	}
	entry, err := parseEntry(text)
	if err != nil {
		return answer.Reply{}, err
	}
	if len(reason) > maxReason {
		return answer.Reply{}, answer.BadRequest("reason has %d bytes, at most %d are allowed", len(reason), maxReason)
	}
	ctx, cancel := answer.UntilStop(r)
	defer cancel()
	err = ctl.cfg.Store.Index.Deny(ctx, entry, reason) //nolint:contextcheck // it ends with the server, not with the client
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, store.ErrClosed):
		return answer.Reply{}, answer.Failure{
			Status: http.StatusServiceUnavailable,
			Text:   "appview is shutting down: a denial that is on the list is carried out at the next start",
		}
	case err != nil:
		return answer.Reply{}, err
	}
	ctl.cfg.Log.InfoContext(r.Context(), "denied", "entry", entry)
	list, err := ctl.cfg.Store.Index.Denials(r.Context())
	if err != nil {
		return answer.Reply{}, err
	}
	for _, d := range list {
		if d.Entry == entry {
			return answer.Reply{Status: http.StatusCreated, Body: newDenialBody(d)}, nil
		}
	}
	return answer.Reply{}, answer.NotFound("%s was taken off the deny list while it was put there", entry)
}

// removeDenial takes an entry off the deny list.
func (ctl *Control) removeDenial(r *http.Request) (answer.Reply, error) {
	params, err := answer.Query(r, "entry")
	if err != nil {
		return answer.Reply{}, err
	}
	entry, err := parseEntry(params["entry"])
	if err != nil {
		return answer.Reply{}, err
	}
	if err := answer.DecodeBody(r.Body); err != nil {
		return answer.Reply{}, err
	}
	err = ctl.cfg.Store.Index.Allow(answer.Detached(r), entry) //nolint:contextcheck // a client that goes away does not leave it in doubt
	switch {
	case errors.Is(err, store.ErrNotFound):
		return answer.Reply{}, answer.NotFound("%s is not on the deny list", entry)
	case err != nil:
		return answer.Reply{}, err
	}
	ctl.cfg.Log.InfoContext(r.Context(), "denied no more", "entry", entry)
	return answer.OK(api.Allowed{Entry: entry}), nil
}

// parseEntry reads what is to be denied: an account by its DID, or a host by its
// name. Denying a host that cannot be one would do nothing, silently.
func parseEntry(text string) (string, error) {
	switch {
	case text == "":
		return "", answer.BadRequest("name an entry: a DID, or the name of a host")
	case strings.HasPrefix(text, "did:"):
		did, err := answer.ParseDID(text)
		return did.String(), err
	}
	entry, err := index.DenialOf(text)
	if _, noAddress := netip.ParseAddr(text); noAddress == nil {
		entry, err = text, nil // as the list shows it, without brackets
	}
	if err != nil {
		return "", answer.BadRequest("entry %s is neither a DID nor the name of a host", answer.Quoted(text))
	}
	host, ok := hostOf(entry)
	if !ok {
		return "", answer.BadRequest("entry %s is neither a DID nor the name of a host: it must be as in pds.example.com", answer.Quoted(text))
	}
	return host, nil
}

// Lengths of a host's name and of its parts, as DNS has them.
const (
	maxHostname = 253
	maxLabel    = 63
)

// hostOf is the one way to write a host's name or address, maybe with a port, in
// which hosts are known. Hosts on their usual port are known by their name alone.
func hostOf(text string) (host string, ok bool) {
	if addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")); err == nil {
		return addr.Unmap().String(), addr.Zone() == ""
	}
	name, port, hasPort := text, "", false
	if at := strings.LastIndexByte(text, ':'); at >= 0 {
		name, port, hasPort = text[:at], text[at+1:], true
	}
	if addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")); err == nil && addr.Zone() == "" {
		name = addr.Unmap().String()
	} else if !isHostname(name) {
		return "", false
	}
	if !hasPort {
		return name, true
	}
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil || n == 0:
		return "", false
	case n == 80 || n == 443:
		return name, true
	default:
		return net.JoinHostPort(name, strconv.FormatUint(n, 10)), true
	}
}

// isHostname reports whether a name can be looked up.
func isHostname(name string) bool {
	if len(name) > maxHostname {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" ||
			strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return false
		}
	}
	return true
}
