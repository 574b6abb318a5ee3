package api

// ActorKind is by what right somebody acts.
type ActorKind string

// The kinds of actors.
const (
	ActorKey         ActorKind = "key"             // with an API key
	ActorEnvironment ActorKind = "environment_key" // with the key of the configuration
	ActorDataDir     ActorKind = "data_dir"        // with access to the files of a stopped server
	ActorStart       ActorKind = "start"           // nobody: the program, when it starts
)

// Action is what an administrator did.
type Action string

// The actions of the audit log.
const (
	ActCreateJob     Action = "backfill:create"
	ActCancelJob     Action = "backfill:cancel"
	ActPauseJob      Action = "backfill:pause"
	ActResumeJob     Action = "backfill:resume"
	ActRetryJob      Action = "backfill:retry"
	ActDeleteRecords Action = "records:delete"
	ActDeny          Action = "denylist:add"
	ActAllow         Action = "denylist:remove"
	ActTrack         Action = "collection:add"
	ActUntrack       Action = "collection:remove"
	ActCreateKey     Action = "key:create"
	ActRevokeKey     Action = "key:revoke"
	ActBackup        Action = "backup"
)

// Outcome is what became of an action.
type Outcome string

// The outcomes of an action.
const (
	OutcomeDone   Outcome = "done"
	OutcomeBegun  Outcome = "begun" // it is carried out whatever happens; another event says when it is done
	OutcomeFailed Outcome = "failed"
)

// Event is an entry of the audit log.
type Event struct {
	At      string  `json:"at"`
	Actor   Actor   `json:"actor"`
	Action  Action  `json:"action"`
	Target  *string `json:"target"`
	Detail  *string `json:"detail"`
	Outcome Outcome `json:"outcome"`
}

// Actor is who did it.
type Actor struct {
	Kind   ActorKind `json:"kind"`
	KeyID  *string   `json:"key_id"`
	Prefix *string   `json:"prefix"`
	Name   *string   `json:"name"`
}

// Events is a page of the audit log, the newest entries first.
type Events struct {
	Events []Event `json:"events"`
	Cursor string  `json:"cursor,omitempty"`
}
