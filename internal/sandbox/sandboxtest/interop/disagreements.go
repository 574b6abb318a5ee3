package interop

// Disagreement is a case of a fixture in which this program says otherwise, on purpose.
type Disagreement struct {
	Fixture string // the file, without what is common to all names of its folder
	Case    string // the line, or the case's note
	Ours    string // what this program makes of it
	Why     string
}

// Disagrees reports whether a case is among Disagreements.
func Disagrees(fixture, name string) bool {
	for _, d := range Disagreements() {
		if d.Fixture == fixture && d.Case == name {
			return true
		}
	}
	return false
}

// Disagreements are all cases in which this program says otherwise.
func Disagreements() []Disagreement {
	const (
		future  = "it is in the future: whoever believed such a rev would believe no other behind it"
		account = "it addresses an account, and what is asked for is a record"
		folder  = "it addresses a collection, and what is asked for is a record"
		float   = "the network holds such records, and an index that left them out would not be equal to it"
		signed  = "what the owner of a repo has signed is there; whether it is a good record is for its readers to say"
		maps    = "a block can hold such a map, and implementations hash it each in its own way"
		noCID   = "it looks like a CID, and none can be read from it"
		oldCID  = "links of this form are in records, so one rule reads all; as the CID of a record it proves nothing"
		kept    = "kept, unverified unless its CID proves it"
	)
	return []Disagreement{
		{"tid", "7777777777777", "refused as a rev", future},
		{"tid", "3zzzzzzzzzzzz", "refused as a rev", future},
		{"aturi", "at://did:plc:asdf123", "refused", account},
		{"aturi", "at://user.bsky.social", "refused", account},
		{"aturi", "at://did:abc:123", "refused", account},
		{"aturi", "at://did:plc:asdf123/com.atproto.feed.post", "refused", folder},
		{"aturi", "at://did:plc:asdf123/com.atproto.feed.postV2", "refused", folder},
		{"cid of a record", "mBcDxtdWx0aWhhc2g+", "the record is rejected", noCID},
		{"cid of a record", "z7x3CtScH765HvShXT", "the record is rejected", noCID},
		{"cid of a record", "7134036155352661643226414134664076", "the record is rejected", noCID},
		{"cid of a record", "QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR", "kept, unverified", oldCID},
		{"data-model", "float", kept, float},
		{"data-model", "record with $type null", kept, signed},
		{"data-model", "record with $type wrong type", kept, signed},
		{"data-model", "record with empty $type string", kept, signed},
		{"data-model", "blob with string size", kept, maps},
		{"data-model", "blob with missing key", kept, maps},
		{"data-model", "bytes with wrong field type", kept, maps},
		{"data-model", "bytes with extra fields", kept, maps},
		{"data-model", "link with wrong field type", kept, maps},
		{"data-model", "link with bogus CID", kept, maps},
		{"data-model", "link with extra fields", kept, maps},
	}
}
