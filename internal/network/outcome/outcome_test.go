package outcome

import (
	"testing"
)

func TestEveryReasonHasItsClassAndItsRetry(t *testing.T) {
	t.Parallel()
	want := map[Reason]struct {
		class Class
		retry bool
	}{
		"exact": {ClassDone, false}, "changed_during_read": {ClassDone, false}, "empty": {ClassDone, false},
		"not_found": {ClassUnavailable, false}, "deleted": {ClassUnavailable, false}, "taken_down": {ClassUnavailable, false},
		"suspended": {ClassUnavailable, false}, "deactivated": {ClassUnavailable, false}, "no_pds": {ClassUnavailable, false},
		"bad_did": {ClassUnavailable, false}, "tombstoned": {ClassUnavailable, false}, "denied": {ClassUnavailable, false},
		"dns": {ClassFailed, true}, "connect": {ClassFailed, true}, "tls": {ClassFailed, true}, "timeout": {ClassFailed, true},
		"http_5xx": {ClassFailed, true}, "cut_body": {ClassFailed, true}, "bad_answer": {ClassFailed, true}, "incomplete": {ClassFailed, true},
		"did_lookup": {ClassFailed, true}, "host_down": {ClassFailed, true}, "rate_limited": {ClassFailed, true}, "no_rev": {ClassFailed, true},
		"http_4xx": {ClassFailed, false}, "bad_endpoint": {ClassFailed, false}, "refused_address": {ClassFailed, false},
		"bad_signature": {ClassFailed, false}, "bad_rev": {ClassFailed, false}, "rev_went_back": {ClassFailed, false},
		"too_large": {ClassFailed, false}, "rejected": {ClassFailed, false},
	}
	all := Reasons()
	if len(all) != len(want) {
		t.Errorf("%d reasons, want %d", len(all), len(want))
	}
	for _, r := range all {
		if w, ok := want[r]; !ok || r.Class() != w.class || r.Retryable() != w.retry {
			t.Errorf("%s: class %s, retryable %v, want %v", r, r.Class(), r.Retryable(), w)
		}
	}
	if r := Reason("news"); r.Class() != ClassFailed || r.Retryable() {
		t.Errorf("an unknown reason is %s, retryable %v", r.Class(), r.Retryable())
	}
}
