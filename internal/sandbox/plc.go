package sandbox

import (
	"net/http"

	"appview/internal/sandbox/encode"
)

func (w *World) plcEndpoints() map[string]endpoint {
	return map[string]endpoint{
		MethodDID:    w.plcDocument,
		methodHealth: func(query) answer { return okJSON([]byte(`{"version":"0.0.1"}`)) },
	}
}

func (w *World) plcDocument(q query) answer {
	a := w.find(q.req.DID)
	if a == nil {
		return plcError(http.StatusNotFound, "DID not registered: "+q.req.DID)
	}
	document, registered, err := a.didDocument()
	if err != nil {
		return broken(err)
	}
	if !registered {
		return plcError(http.StatusGone, "DID not available: "+q.req.DID)
	}
	return answer{status: http.StatusOK, contentType: contentDID, body: document}
}

// plcError is an error in the directory's own shape.
func plcError(status int, message string) answer {
	b := encode.String([]byte(`{"message":`), message)
	return answer{status: status, contentType: contentJSON, body: append(b, '}')}
}
