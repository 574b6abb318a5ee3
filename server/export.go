package server

import (
	"net/http"
	"strconv"

	"appview/internal/api"
	"appview/store/index"
)

// maxExports bounds the exports that run at once. Each holds a read transaction
// open, during which the file cannot reuse pages: the client must keep up.
const maxExports = 2

// exportRecords streams one consistent snapshot as lines of JSON.
func (s *Server) exportRecords(w http.ResponseWriter, r *http.Request) error {
	params, err := query(r, "collection", "did")
	if err != nil {
		return err
	}
	filter, err := parseFilter(params)
	if err != nil {
		return err
	}
	return s.streamLines(w, r, s.exports, "exports", func(l *lines) error {
		begin := func(seq uint64) error {
			w.Header().Set(api.Seq, strconv.FormatUint(seq, 10))
			return l.begin()
		}
		var line []byte
		var out printer
		return s.cfg.Store.Index.Export(r.Context(), filter, begin, func(rec *index.Record) error {
			var err error
			if line, err = out.append(line[:0], rec); err != nil {
				return err
			}
			_, err = l.Write(append(line, '\n'))
			return err
		})
	})
}
