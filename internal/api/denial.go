package api

// DenialRequest is what is to be denied.
type DenialRequest struct {
	Entry  string `json:"entry"`
	Reason string `json:"reason,omitempty"`
}

// Denial is an entry of the deny list.
type Denial struct {
	Entry   string  `json:"entry"`
	Reason  *string `json:"reason"`
	AddedAt string  `json:"added_at"`
}

// Denials is the deny list.
type Denials struct {
	Entries []Denial `json:"entries"`
}

// Allowed says what was taken off the deny list.
type Allowed struct {
	Entry string `json:"entry"`
}
