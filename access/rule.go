package access

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/ententehq/entente/access/admission"
	"github.com/ententehq/entente/access/grant"
)

// Reach is how far a grant has to reach for a method. The package comment describes each value.
type Reach uint8

// The values of [Reach].
const (
	Cluster Reach = iota + 1
	Domain
	Listing
	Bundles
	Anywhere
)

// Audit is which calls of a method are recorded in the audit log, and how.
type Audit uint8

const (
	// Unaudited methods only read.
	Unaudited Audit = iota + 1
	// AuditedByRoom methods are recorded by their room, with details that only it has. Signatures are of this kind.
	AuditedByRoom
	// Audited methods have a line before and a line after the call. The system writes them to disk in its own time.
	Audited
	// AuditedDurably methods have the same lines, synced to disk before the call proceeds. Administrative changes are
	// of this kind.
	AuditedDurably
)

// Rule is the access rule of one method of the API.
type Rule struct {
	// Roles may call it. The admin socket may call everything that has a rule.
	Roles []grant.Role
	Reach Reach
	Audit Audit
	// Issues is set for methods that issue an identity. IDs below ReservedPath are refused to every caller.
	Issues bool
	// IssuesEach is set for methods that issue several identities. The room calls [Permits] for each ID, which applies
	// the same refusal as Issues.
	IssuesEach bool
	// PeerMembers admits the members of other clusters without a grant, by their X509-SVIDs. The room then checks the
	// relationships, which name the peers.
	PeerMembers bool
	// Agents admits attested agents without a grant, by the IDs that the server issues to agents alone. They see every
	// trust domain. The room then decides by the entries of the agent.
	Agents bool
	// DefaultsToHome is set if a request without a trust domain means the home domain.
	DefaultsToHome bool
	// Scoped is set for streams whose responses depend on the caller's grants although Prune does not reduce them: see
	// [ScopeFrom].
	Scoped bool
	// unread is set in the rule that applies before a request is read, if the request would name a domain or an ID.
	unread bool
	// Target returns what a request names. If nil, requests name nothing.
	Target func(proto.Message) Target
	// Prune returns a copy of a response, reduced to the trust domains for which keep returns true. It does not change
	// the response, which may be shared. It is set if Reach is Listing or Bundles and the response spans domains.
	Prune func(response proto.Message, keep func(trustDomain string) bool) proto.Message
}

// Mutates reports whether the method changes state or issues something that is audited.
func (r Rule) Mutates() bool { return r.Audit != Unaudited }

// loadOf returns the load of a method.
func loadOf(method string, rule Rule) admission.Load {
	switch {
	case rule.PeerMembers:
		return admission.Peering
	case isStream(method):
		return admission.Streams
	case rule.Audit == AuditedByRoom:
		return admission.Signing
	case rule.Mutates():
		return admission.Writes
	}
	return admission.Reads
}

// isStream reports whether a method is a stream. A method that is not known here counts as one.
func isStream(method string) bool {
	name := strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", ".")
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return true
	}
	m, ok := d.(protoreflect.MethodDescriptor)
	return !ok || m.IsStreamingClient() || m.IsStreamingServer()
}

// early returns the part of the rule that can be decided before the first message of a call.
func (r Rule) early() Rule {
	if r.Reach == Domain {
		r.Reach, r.unread = Anywhere, true
	}
	r.Issues, r.DefaultsToHome = false, false
	return r
}

// Target is what a request names. None of it has been checked.
type Target struct {
	// Roles, if not nil, are the only roles that may make this request, instead of those of its rule.
	Roles []grant.Role
	// TrustDomains are the named trust domains. If empty, the request means every domain, or the cluster as a whole.
	TrustDomains []string
	// SPIFFEID is the ID to be issued or registered.
	SPIFFEID string
	// DNSNames are the DNS names of the certificate to be issued.
	DNSNames []string
	// Object is the object in the audit log.
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

// prune adapts a function that reduces a message of one type to Rule.Prune. The function gets a shallow copy.
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
		response, _ := to.Interface().(M)
		f(response, keep)
		return response
	}
}

// inDomain is the target of a request with one trust domain, which it may leave out to mean every domain.
func inDomain[M interface {
	proto.Message
	GetTrustDomain() string
}]() func(proto.Message) Target {
	return on(func(m M) Target { return targetDomain(m.GetTrustDomain()) })
}

// named is the target of a request that names an object other than a trust domain.
func named[M proto.Message](name func(M) string) func(proto.Message) Target {
	return on(func(m M) Target { return Target{Object: name(m)} })
}

func targetDomain(td string) Target {
	if td == "" {
		return Target{Object: "every hosted domain"}
	}
	return Target{TrustDomains: []string{td}, Object: td}
}
