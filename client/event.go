package client

// EventKind is the kind of an [Event].
type EventKind int

// Kinds of events.
const (
	// Renewed: an SVID was renewed.
	Renewed EventKind = iota + 1
	// RenewalFailed: an SVID or a lease could not be renewed, or an SVID not be issued. It is reported once an outage.
	RenewalFailed
	// Recovered: a lease is renewed again after a failure.
	Recovered
	// Expired: an SVID expired during an outage. It is reported once.
	Expired
	// Registered: instances had been removed and were registered again.
	Registered
	// Lost: another caller took an instance of a lease over, or removed it. The lease does not register it again.
	Lost
	// WatchBroken: the stream of changes broke and is opened again. It is reported once an outage.
	WatchBroken
	// BundleChanged: the bundle of the SVID's own trust domain changed.
	BundleChanged
	// BundleInvalid: a bundle of the cluster is invalid; the previous one stays.
	BundleInvalid
	// DomainDeleted: the cluster no longer hosts the trust domain of the SVID.
	DomainDeleted
)

// Event is something that a source or a lease reports to its user: for a log, not for decisions.
type Event struct {
	Kind EventKind
	// Message continues a sentence that begins with the SVID, the instance or the source, such as "was renewed until
	// …".
	Message string
	// Err is the cause, or nil.
	Err error
}
