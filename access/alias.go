package access

import "github.com/ententehq/entente/access/audit"

// These names are of package audit. They go as soon as every room imports that package.
type (
	Event     = audit.Event
	Recorded  = audit.Recorded
	Log       = audit.Log
	LogConfig = audit.Config
	Tail      = audit.Tail
)

const (
	ResultBegun  = audit.ResultBegun
	ResultDone   = audit.ResultDone
	ResultFailed = audit.ResultFailed
	ResultDenied = audit.ResultDenied
	MaxTailLines = audit.MaxTailLines
)

var (
	OpenLog        = audit.Open
	ErrLogClosed   = audit.ErrClosed
	ErrTailEnd     = audit.ErrTailEnd
	ErrTailTooSlow = audit.ErrTailTooSlow
)
