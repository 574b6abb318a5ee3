package network

import (
	"errors"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"
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
	err = scan(body, func(s *scanner, key string) (err error) {
		switch key {
		case "id":
			doc.id, err = s.text()
		case "service":
			doc.endpoint, doc.odd = "", nil
			err = s.objects(func() error { return doc.addService(s, did) })
		case "verificationMethod":
			doc.key, doc.foreign = signingKey{}, signingKey{}
			err = s.objects(func() error { return doc.addKey(s, did) })
		default:
			_, err = s.value()
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
func (doc *didDocument) addService(s *scanner, did syntax.DID) error {
	var (
		id, endpoint string
		pds          bool
		odd          error
	)
	err := s.object(func(key string) (err error) {
		switch key {
		case "id":
			id, err = s.text()
		case "type":
			pds = false
			_, err = s.texts(func(text string) { pds = pds || text == serviceTypePDS })
		case "serviceEndpoint":
			endpoint, odd = "", nil
			var raw []byte
			raw, err = s.texts(func(text string) {
				if endpoint == "" {
					endpoint = text
				}
			})
			if err == nil && endpoint == "" && namesSomething(raw) {
				odd = fmt.Errorf("its serviceEndpoint is no text: %.100q", raw)
			}
		default:
			_, err = s.value()
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
func (doc *didDocument) addKey(s *scanner, did syntax.DID) error {
	var (
		id  string
		key signingKey
	)
	own, named := false, false
	err := s.object(func(member string) (err error) {
		switch member {
		case "id":
			id, err = s.text()
		case "type":
			key.suite = ""
			_, err = s.texts(func(text string) {
				if key.suite == "" || isSuite(text) {
					key.suite = text
				}
			})
		case "controller":
			own, named = false, false
			_, err = s.texts(func(text string) { own, named = own || text == did.String(), true })
		case "publicKeyMultibase":
			key.text, err = s.text()
		default:
			_, err = s.value()
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

// objects calls item at each object of an array, which must take it off, or at the one
// object that stands in place of an array. Anything else is taken off unread.
func (s *scanner) objects(item func() error) error {
	each := func() error {
		if s.peek() == '{' {
			return item()
		}
		_, err := s.value()
		return err
	}
	if s.peek() == '[' {
		return s.array(each)
	}
	return each()
}

// texts takes any value off, and hands on the text that it is, or the texts that it
// lists.
func (s *scanner) texts(text func(string)) (raw []byte, err error) {
	start := s.pos
	each := func() error {
		isText := s.peek() == '"'
		value, err := s.text()
		if err == nil && isText {
			text(value)
		}
		return err
	}
	if s.peek() == '[' {
		err = s.array(each)
	} else {
		err = each()
	}
	return s.in[start:s.pos:s.pos], err
}
