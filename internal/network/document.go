package network

import (
	"errors"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/record"
)

const (
	maxDocument = 1 << 20 // bytes of a DID document

	servicePDS     = "#atproto_pds"
	serviceTypePDS = "AtprotoPersonalDataServer"
	keyAtproto     = "#atproto"
)

// didDocument is what a DID document says of the PDS and of the signing key. All else
// in it is passed over, whatever its shape. As for every reader of JSON, the last of
// several members of one name counts.
type didDocument struct {
	id       string
	endpoint string // of the first PDS entry that has one
	odd      error  // a PDS entry has an endpoint, and it is no text
	key      signingKey
	foreign  signingKey // one that another DID is said to control: it counts where there is no other
}

// readDocument reads the document of a DID.
func readDocument(body []byte, did syntax.DID) (doc didDocument, err error) {
	err = record.ScanObject(body, func(s *record.Scanner, key string) (err error) {
		switch key {
		case "id":
			doc.id, err = s.Text()
		case "service":
			doc.endpoint, doc.odd = "", nil
			err = eachObject(s, func() error { return doc.addService(s, did) })
		case "verificationMethod":
			doc.key, doc.foreign = signingKey{}, signingKey{}
			err = eachObject(s, func() error { return doc.addKey(s, did) })
		default:
			err = s.Skip()
		}
		return err
	})
	switch {
	case err != nil:
		return doc, err
	case doc.id == "":
		return doc, errors.New("no did document: it has no id")
	case doc.id != did.String():
		return doc, fmt.Errorf("the document is that of %.100q", doc.id)
	}
	if doc.key == (signingKey{}) {
		doc.key = doc.foreign
	}
	return doc, nil
}

// addService reads one service entry.
func (doc *didDocument) addService(s *record.Scanner, did syntax.DID) error {
	var (
		id, endpoint string
		pds          bool
		odd          error
	)
	err := s.Object(func(key string) (err error) {
		switch key {
		case "id":
			id, err = s.Text()
		case "type":
			pds = false
			_, err = readTexts(s, func(text string) { pds = pds || text == serviceTypePDS })
		case "serviceEndpoint":
			endpoint, odd = "", nil
			var raw []byte
			raw, err = readTexts(s, func(text string) {
				if endpoint == "" {
					endpoint = text
				}
			})
			if err == nil && endpoint == "" && namesSomething(raw) {
				odd = fmt.Errorf("its serviceEndpoint is no text: %.100q", raw)
			}
		default:
			err = s.Skip()
		}
		return err
	})
	if err != nil || !pds || doc.endpoint != "" || id != servicePDS && id != did.String()+servicePDS {
		return err
	}
	doc.endpoint = endpoint
	if doc.odd == nil {
		doc.odd = odd
	}
	return nil
}

// namesSomething reports whether a JSON value that holds no text is more than nothing.
func namesSomething(raw []byte) bool {
	switch string(raw) {
	case `""`, "null", "[]":
		return false
	default:
		return true
	}
}

// addKey reads one verification method. The first with the right id is the account's;
// one that another DID controls stands back behind those of its own.
func (doc *didDocument) addKey(s *record.Scanner, did syntax.DID) error {
	var (
		id  string
		key signingKey
	)
	own, named := false, false
	err := s.Object(func(member string) (err error) {
		switch member {
		case "id":
			id, err = s.Text()
		case "type":
			key.suite = ""
			_, err = readTexts(s, func(text string) {
				if key.suite == "" || isSuite(text) {
					key.suite = text
				}
			})
		case "controller":
			own, named = false, false
			_, err = readTexts(s, func(text string) { own, named = own || text == did.String(), true })
		case "publicKeyMultibase":
			key.text, err = s.Text()
		default:
			err = s.Skip()
		}
		return err
	})
	if err != nil || id != keyAtproto && id != did.String()+keyAtproto {
		return err
	}
	key.found = true
	to := &doc.key
	if named && !own {
		to = &doc.foreign
	}
	if !to.found {
		*to = key
	}
	return nil
}

// eachObject calls item at each object of an array, which must read it, or at the one
// object that stands in place of an array. Anything else is skipped.
func eachObject(s *record.Scanner, item func() error) error {
	each := func() error {
		if s.Peek() == '{' {
			return item()
		}
		return s.Skip()
	}
	if s.Peek() == '[' {
		return s.Array(each)
	}
	return each()
}

// readTexts reads any value, and calls text with the text that it is, or the texts that it
// lists.
func readTexts(s *record.Scanner, text func(string)) (raw []byte, err error) {
	each := func() error {
		isText := s.Peek() == '"'
		value, err := s.Text()
		if err == nil && isText {
			text(value)
		}
		return err
	}
	return s.Raw(func() error {
		if s.Peek() == '[' {
			return s.Array(each)
		}
		return each()
	})
}
