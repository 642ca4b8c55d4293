package access

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Reach says how far a grant has to reach for a method. The package comment tells them apart.
type Reach uint8

// How far a grant has to reach.
const (
	Cluster Reach = iota + 1
	Domain
	Listing
	Bundles
	Anywhere
)

// Audit says what of a method goes into the audit log.
type Audit uint8

const (
	// Unaudited methods only read.
	Unaudited Audit = iota + 1
	// AuditedByRoom leaves it to the room, which records one line with what only it knows. Signatures are such.
	AuditedByRoom
	// Audited methods have a line before and a line after, which reach the disk when the system writes them there.
	Audited
	// AuditedDurably is the same, on the disk before the call goes on. Administrative changes are such.
	AuditedDurably
)

// Rule is what holds for one method of the API.
type Rule struct {
	// Roles may call it. The admin socket may call everything that has a rule.
	Roles []Role
	Reach Reach
	Audit Audit
	// Issues marks what issues an identity: IDs below ReservedPath are refused to every caller.
	Issues bool
	// IssuesEach marks what issues several: the room asks [Permits] for each ID, which then refuses as Issues does.
	IssuesEach bool
	// PeerMembers lets the members of other clusters in without a grant, by their X509-SVIDs: which of them are peers is
	// in the relationships, and the room decides by those.
	PeerMembers bool
	// DefaultsToHome marks requests that mean the home domain when they name none.
	DefaultsToHome bool
	// Scoped marks streams whose answers depend on the caller's grants without being cut down by Prune: see [ScopeFrom].
	Scoped bool
	// Target reads from a request what it is about. Nil: about nothing in particular.
	Target func(proto.Message) Target
	// Prune returns an answer cut down to the trust domains for which keep is true, and leaves the answer itself as it
	// is: it may be shared. Set where Reach is Listing or Bundles and the answer spans domains.
	Prune func(answer proto.Message, keep func(trustDomain string) bool) proto.Message
}

// Mutates reports whether the method changes something, or hands out what is kept.
func (r Rule) Mutates() bool { return r.Audit != Unaudited }

// early is what of the rule can be decided before a stream's first message has come.
func (r Rule) early() Rule {
	if r.Reach == Domain {
		r.Reach = Anywhere
	}
	r.Issues, r.DefaultsToHome = false, false
	return r
}

// Target is what a request is about, as it says; nothing of it has been checked.
type Target struct {
	// TrustDomains that it names. None: every domain, or the cluster as a whole.
	TrustDomains []string
	// SPIFFEID that it is about: to be issued, or to be registered.
	SPIFFEID string
	// DNSNames that what is to be issued shall carry besides.
	DNSNames []string
	// Object stands in the audit log.
	Object string
}

// on adapts a function of one request type to Rule.Target.
func on[M proto.Message](f func(M) Target) func(proto.Message) Target {
	return func(m proto.Message) Target {
		if request, ok := m.(M); ok {
			return f(request)
		}
		return Target{}
	}
}

// prune adapts a function that cuts down a message of one type to Rule.Prune. What it cuts down is a shallow copy.
func prune[M proto.Message](f func(M, func(string) bool)) func(proto.Message, func(string) bool) proto.Message {
	return func(m proto.Message, keep func(string) bool) proto.Message {
		if _, ok := m.(M); !ok {
			return m
		}
		from := m.ProtoReflect()
		to := from.New()
		from.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
			to.Set(field, value)
			return true
		})
		answer, _ := to.Interface().(M)
		f(answer, keep)
		return answer
	}
}

// inDomain is about one trust domain, which a request may leave out to mean every one.
func inDomain[M interface {
	proto.Message
	GetTrustDomain() string
}]() func(proto.Message) Target {
	return on(func(m M) Target { return targetDomain(m.GetTrustDomain()) })
}

// named is about the thing that a request names, not about a trust domain.
func named[M proto.Message](name func(M) string) func(proto.Message) Target {
	return on(func(m M) Target { return Target{Object: name(m)} })
}

func targetDomain(td string) Target {
	if td == "" {
		return Target{Object: "every hosted domain"}
	}
	return Target{TrustDomains: []string{td}, Object: td}
}
