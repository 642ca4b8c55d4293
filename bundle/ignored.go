package bundle

import "fmt"

// IgnoredKind is the reason why a part of a document has no effect. The values are fit for a metric label.
type IgnoredKind string

// The parts that a reader ignores, by the bundle standard and by RFC 7517, section 5.
const (
	// IgnoredParameter is a member of the document or the map that the standard does not define.
	IgnoredParameter IgnoredKind = "parameter"
	// IgnoredKeyType is a key with an unknown kty, or without one.
	IgnoredKeyType IgnoredKind = "key_type"
	// IgnoredUse is a key with a use other than x509-svid, jwt-svid and wit-svid, or with none.
	IgnoredUse IgnoredKind = "use"
	// IgnoredNoCertificate is an x509-svid key without x5c.
	IgnoredNoCertificate IgnoredKind = "no_certificate"
	// IgnoredMoreCertificates are the certificates of an x5c after the first, which counts.
	IgnoredMoreCertificates IgnoredKind = "more_certificates"
	// IgnoredNoKeyID is a jwt-svid or wit-svid key without kid.
	IgnoredNoKeyID IgnoredKind = "no_key_id"
	// IgnoredUnusable is a key that no verifier could use: not a CA certificate, an unknown curve, a size out of range.
	IgnoredUnusable IgnoredKind = "unusable"
	// IgnoredDuplicate is a key that the document already has.
	IgnoredDuplicate IgnoredKind = "duplicate"
	// IgnoredHint is the refresh hint of one bundle in a map, which has no meaning there.
	IgnoredHint IgnoredKind = "hint"
	// IgnoredMore stands at the end of a list for all further parts, of whatever kind; Ignored.More counts them.
	IgnoredMore IgnoredKind = "more"
)

// MaxIgnored bounds the parts that a reader lists. Those beyond are counted.
const MaxIgnored = 64

// Ignored is a part of a document that was left out. The rest of the document is not affected.
type Ignored struct {
	Kind IgnoredKind
	// Key is the index of the key in the document, or -1 if it is not about a key.
	Key int
	// Detail is one line, quoted where it comes from the document, of bounded length.
	Detail string
	// More is the number of parts that an entry of the kind [IgnoredMore] stands for, and 0 in all others.
	More int
}

func (i Ignored) String() string {
	where := ""
	if i.Key >= 0 {
		where = fmt.Sprintf("key %d: ", i.Key)
	}
	return fmt.Sprintf("%s%s (%s)", where, i.Detail, i.Kind)
}

// CountIgnored returns the number of parts that a list stands for.
func CountIgnored(ignored []Ignored) int {
	n := len(ignored)
	if n > 0 && ignored[n-1].Kind == IgnoredMore {
		n += ignored[n-1].More - 1
	}
	return n
}

// leftOut collects the first ignored parts, and counts the others.
type leftOut struct {
	parts []Ignored
	more  int
}

func (l *leftOut) full() bool { return len(l.parts) == MaxIgnored }

func (l *leftOut) add(i Ignored) {
	switch {
	case i.Kind == IgnoredMore:
		l.more += i.More
	case l.full():
		l.more++
	default:
		l.parts = append(l.parts, i)
	}
}

// list returns the collected parts, with the number of the others at the end.
func (l *leftOut) list() []Ignored {
	if l.more == 0 {
		return l.parts
	}
	return append(
		l.parts,
		Ignored{Kind: IgnoredMore, Key: -1, Detail: fmt.Sprintf("%d more parts have no effect", l.more), More: l.more},
	)
}
