package store_test

import (
	"fmt"

	"appview/store/index"
)

// What an account takes of the file, by what the model holds of it.

// size adds up what stands in the file of a repo: with each key and value sixteen bytes.
func (m *model) size(r *modelRepo) (n int64) {
	const entry, number, seq, checksum = 16, 4, 8, 4
	for c, h := range r.held {
		n += 7*int64(entry+len(c)) + 256
		for rkey, rec := range h.records {
			key := number + len(rkey)
			row := 1 + 8 + 4 + 8 + 1 + 1 + rec.Body.CID.ByteLen() + len(rec.Body.Data) + checksum
			n += int64(entry+key+row) + int64(entry+seq+key) + int64(entry+key+1)
		}
	}
	for _, list := range m.deletions {
		for _, d := range list {
			if d.DID == r.did {
				n += int64(entry + seq + 8 + 8 + number + len(d.RKey))
			}
		}
	}
	return n
}

// tooLarge says why a reading is not written, if the account would take too much by it:
// more than it may, and more than it does. marks is what is noted of the listing besides.
func (m *model) tooLarge(r *modelRepo, w *modelWork, read index.Reading, marks int64) string {
	after := m.clone()
	as := after.repo(r.did)
	for _, seg := range read.Segments {
		after.apply(as, w.fresh(seg), read, &index.Tally{})
	}
	is, more := m.size(r), after.size(as)-m.size(r)
	if m.limit == 0 || is+more+marks <= m.limit || more <= 0 && marks == 0 {
		return ""
	}
	return fmt.Sprintf("%s: it takes %d bytes, would take %d more, and may take %d (--max-account-bytes)", index.ErrAccountFull, is, more+marks, m.limit)
}
