//go:build e2e

package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/atdata"
)

// plcFront puts the documents of an old PLC server into the form that the
// directory sends today: Multikey, with absolute key ids, and 410 for what is
// tombstoned. All else goes through.
type plcFront struct {
	directory endpoint
	through   http.Handler
}

func newPLCFront(directory endpoint) (*plcFront, error) {
	through, err := proxyTo(directory)
	if err != nil {
		return nil, err
	}
	return &plcFront{directory: directory, through: through}, nil
}

func (f *plcFront) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	did := strings.TrimPrefix(r.URL.Path, "/")
	if r.Method != http.MethodGet || !strings.HasPrefix(did, "did:plc:") || strings.Contains(did, "/") {
		f.through.ServeHTTP(w, r)
		return
	}
	doc, err := f.document(r.Context(), did)
	if err != nil {
		status := http.StatusBadGateway
		if failed, ok := errors.AsType[*statusError](err); ok {
			status = failed.Status
			// The old server has one status for the unknown and the tombstoned.
			if strings.HasPrefix(failed.Message, "DID not available") {
				status = http.StatusGone
			}
		}
		http.Error(w, err.Error(), status)
		return
	}
	w.Header().Set("Content-Type", "application/did+ld+json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(doc) // fails only if the client has gone
}

// plcData is what the directory holds of an account that is not tombstoned.
type plcData struct {
	RotationKeys        []string          `json:"rotationKeys"`
	AlsoKnownAs         []string          `json:"alsoKnownAs"`
	VerificationMethods map[string]string `json:"verificationMethods"`
	Services            map[string]struct {
		Type     string `json:"type"`
		Endpoint string `json:"endpoint"`
	} `json:"services"`
}

func (f *plcFront) document(ctx context.Context, did string) (map[string]any, error) {
	// The document itself decides whether there is one; only its form is old.
	if err := f.directory.get(ctx, "/"+did, nil, "", nil); err != nil {
		return nil, err
	}
	var data plcData
	if err := f.directory.get(ctx, "/"+did+"/data", nil, "", &data); err != nil {
		return nil, err
	}
	methods, services := []any{}, []any{}
	for name, key := range data.VerificationMethods {
		methods = append(methods, map[string]any{
			"id": did + "#" + name, "type": "Multikey", "controller": did,
			"publicKeyMultibase": strings.TrimPrefix(key, "did:key:"),
		})
	}
	for name, s := range data.Services {
		services = append(services, map[string]any{"id": "#" + name, "type": s.Type, "serviceEndpoint": s.Endpoint})
	}
	return map[string]any{
		"@context": []string{
			"https://www.w3.org/ns/did/v1",
			"https://w3id.org/security/multikey/v1",
			"https://w3id.org/security/suites/secp256k1-2019/v1",
		},
		"id": did, "alsoKnownAs": data.AlsoKnownAs, "verificationMethod": methods, "service": services,
	}, nil
}

// plcOperation signs op with key, as the successor of the account's last
// operation, and hands it to the directory.
func plcOperation(ctx context.Context, directory endpoint, key *atcrypto.PrivateKeyK256, did string, op map[string]any) error {
	var log []struct {
		CID string `json:"cid"`
	}
	if err := directory.get(ctx, "/"+did+"/log/audit", nil, "", &log); err != nil {
		return fmt.Errorf("last operation of %s: %w", did, err)
	}
	if len(log) == 0 {
		return fmt.Errorf("last operation of %s: the log is empty", did)
	}
	op["prev"] = log[len(log)-1].CID
	unsigned, err := atdata.MarshalCBOR(op)
	if err != nil {
		return fmt.Errorf("encode operation on %s: %w", did, err)
	}
	sig, err := key.HashAndSign(unsigned)
	if err != nil {
		return fmt.Errorf("sign operation on %s: %w", did, err)
	}
	op["sig"] = base64.RawURLEncoding.EncodeToString(sig)
	return directory.post(ctx, "/"+did, "", op, nil)
}

// proxyTo sends every request on to another server.
func proxyTo(to endpoint) (http.Handler, error) {
	u, err := url.Parse(string(to))
	if err != nil {
		return nil, fmt.Errorf("proxy to %s: %w", to, err)
	}
	return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u) }}, nil
}
