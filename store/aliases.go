package store

import (
	"appview/store/index"
	"appview/store/jobs"
)

type (
	// Count is index.Count.
	Count = index.Count
	// Denial is index.Denial.
	Denial = index.Denial
	// Exactness is index.Exactness.
	Exactness = index.Exactness
	// Filter is index.Filter.
	Filter = index.Filter
	// Held is index.Held.
	Held = index.Held
	// KeyPlace is index.KeyPlace.
	KeyPlace = index.KeyPlace
	// Listed is index.Listed.
	Listed = index.Listed
	// Reading is index.Reading.
	Reading = index.Reading
	// Record is index.Record.
	Record = index.Record
	// Repo is index.Repo.
	Repo = index.Repo
	// RepoPage is index.RepoPage.
	RepoPage = index.RepoPage
	// Segment is index.Segment.
	Segment = index.Segment
	// Source is index.Source.
	Source = index.Source
	// Tally is index.Tally.
	Tally = index.Tally
	// Behaviour is jobs.Behaviour.
	Behaviour = jobs.Behaviour
	// Collection is jobs.Collection.
	Collection = jobs.Collection
	// Cursor is jobs.Cursor.
	Cursor = jobs.Cursor
	// Discovery is jobs.Discovery.
	Discovery = jobs.Discovery
	// Freshness is jobs.Freshness.
	Freshness = jobs.Freshness
	// HostWork is jobs.HostWork.
	HostWork = jobs.HostWork
	// Idempotency is jobs.Idempotency.
	Idempotency = jobs.Idempotency
	// Job is jobs.Job.
	Job = jobs.Job
	// JobHost is jobs.JobHost.
	JobHost = jobs.JobHost
	// JobRepo is jobs.JobRepo.
	JobRepo = jobs.JobRepo
	// Jobs is jobs.Jobs.
	Jobs = jobs.Jobs
	// MoveError is jobs.MoveError.
	MoveError = jobs.MoveError
	// Order is jobs.Order.
	Order = jobs.Order
	// Owed is jobs.Owed.
	Owed = jobs.Owed
	// Position is jobs.Position.
	Position = jobs.Position
	// ReadUpTo is jobs.ReadUpTo.
	ReadUpTo = jobs.ReadUpTo
	// Reply is jobs.Reply.
	Reply = jobs.Reply
	// ReplyError is jobs.ReplyError.
	ReplyError = jobs.ReplyError
	// Request is jobs.Request.
	Request = jobs.Request
	// Settlement is jobs.Settlement.
	Settlement = jobs.Settlement
	// ShortPages is jobs.ShortPages.
	ShortPages = jobs.ShortPages
	// Stats is jobs.Stats.
	Stats = jobs.Stats
	// Totals is jobs.Totals.
	Totals = jobs.Totals
	// Verdict is jobs.Verdict.
	Verdict = jobs.Verdict
	// WorkRepo is jobs.WorkRepo.
	WorkRepo = jobs.WorkRepo
)

// Constants of what the parts hold.
const (
	AccountActive           = index.AccountActive
	AccountDeactivated      = index.AccountDeactivated
	AccountDenied           = index.AccountDenied
	AccountNotFound         = index.AccountNotFound
	AccountSuspended        = index.AccountSuspended
	AccountTakenDown        = index.AccountTakenDown
	DefaultMaxAccountBytes  = index.DefaultMaxAccountBytes
	ExactAssumed            = index.ExactAssumed
	ExactProved             = index.ExactProved
	ExactUnknown            = index.ExactUnknown
	LeastMaxAccountBytes    = index.LeastMaxAccountBytes
	SourceListRecords       = index.SourceListRecords
	SourceLive              = index.SourceLive
	SourceProof             = index.SourceProof
	SourceRepo              = index.SourceRepo
	ClassDone               = jobs.ClassDone
	ClassFailed             = jobs.ClassFailed
	ClassUnavailable        = jobs.ClassUnavailable
	MaxIdempotencyKey       = jobs.MaxIdempotencyKey
	OrderDown               = jobs.OrderDown
	OrderNone               = jobs.OrderNone
	OrderUnknown            = jobs.OrderUnknown
	OrderUp                 = jobs.OrderUp
	ReasonChangedDuringRead = jobs.ReasonChangedDuringRead
	ReasonEmpty             = jobs.ReasonEmpty
	ReasonExact             = jobs.ReasonExact
	ReasonRejected          = jobs.ReasonRejected
	ReasonTooLarge          = jobs.ReasonTooLarge
	RepoFound               = jobs.RepoFound
	RepoOwed                = jobs.RepoOwed
	RepoSettled             = jobs.RepoSettled
)

var (
	// DenialOf is index.DenialOf.
	DenialOf = index.DenialOf
	// ErrAccountFull is index.ErrAccountFull.
	ErrAccountFull = index.ErrAccountFull
	// ErrDenied is index.ErrDenied.
	ErrDenied = index.ErrDenied
	// ErrNotTheEnd is index.ErrNotTheEnd.
	ErrNotTheEnd = index.ErrNotTheEnd
	// ErrRevWentBack is index.ErrRevWentBack.
	ErrRevWentBack = index.ErrRevWentBack
	// ErrStop is index.ErrStop.
	ErrStop = index.ErrStop
	// ErrUndone is index.ErrUndone.
	ErrUndone = index.ErrUndone
	// UnnamedKey is index.UnnamedKey.
	UnnamedKey = index.UnnamedKey
	// ErrBusy is jobs.ErrBusy.
	ErrBusy = jobs.ErrBusy
	// ErrMove is jobs.ErrMove.
	ErrMove = jobs.ErrMove
	// ErrNoFilter is jobs.ErrNoFilter.
	ErrNoFilter = jobs.ErrNoFilter
	// ErrNothingLeft is jobs.ErrNothingLeft.
	ErrNothingLeft = jobs.ErrNothingLeft
	// ErrOtherRequest is jobs.ErrOtherRequest.
	ErrOtherRequest = jobs.ErrOtherRequest
	// ErrStale is jobs.ErrStale.
	ErrStale = jobs.ErrStale
	// WithIdempotency is jobs.WithIdempotency.
	WithIdempotency = jobs.WithIdempotency
)
