package api

// Names of headers that are ours, or mean something to us.
const (
	// IdempotencyKey names a request that makes a job, so that it may be repeated: what
	// has its name, and asks for the same, is answered as it was, and makes no other job.
	IdempotencyKey = "Idempotency-Key"
	// RequestID carries the name of the request in the log.
	RequestID = "X-Request-Id"
	// SyncedAt says since when an answer about a collection is no older than the network:
	// when the last complete job over it began. It is not there if there was none.
	SyncedAt = "Appview-Synced-At"
	// Seq says which change an export contains last.
	Seq = "Appview-Seq"
)

// Error is the body of a failed request.
type Error struct {
	Error     string `json:"error"`
	RequestID string `json:"request_id,omitempty"` // only where the log says more
}

// XRPCError is the body of a failed XRPC request.
type XRPCError struct {
	Error   string `json:"error"`
	Message string `json:"message"`
}

// Health is the answer to a probe.
type Health struct {
	Status  string `json:"status"`
	Version string `json:"version,omitempty"`
}
