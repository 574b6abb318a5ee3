package reads

import (
	"net/http"
	"strconv"

	"appview/internal/api"
	"appview/server/answer"
	"appview/store/index"
)

// exportRecords streams one consistent snapshot as lines of JSON.
func (rd *Reads) exportRecords(w http.ResponseWriter, r *http.Request) error {
	params, err := answer.Query(r, "collection", "did")
	if err != nil {
		return err
	}
	filter, err := answer.ParseFilter(params)
	if err != nil {
		return err
	}
	return rd.out.StreamLines(w, r, rd.out.Bounds.Exports, "exports", func(l *answer.Lines) error {
		begin := func(seq uint64) error {
			w.Header().Set(api.Seq, strconv.FormatUint(seq, 10))
			return l.Begin()
		}
		var line []byte
		var out printer
		return rd.store.Index.Export(r.Context(), filter, begin, func(rec *index.Record) error {
			var err error
			if line, err = out.append(line[:0], rec); err != nil {
				return err
			}
			_, err = l.Write(append(line, '\n'))
			return err
		})
	})
}
