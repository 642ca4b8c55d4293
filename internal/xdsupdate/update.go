package xdsupdate

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Update is what one stream is to be sent of one type.
type Update struct {
	// Send are the resources with their content, Removed the names of those that do not exist any more.
	Send    []*Resource
	Removed []string
	// Has is what the client has afterwards: versions by name.
	Has map[string]string
	// Changed are those of Send that the client does not have yet.
	Changed map[string]*Resource
}

// Difference returns what a client has to be sent, or nil. wanted is what it is to have, and has the versions that it
// has. A version that the client has rejected is not sent again.
func Difference(t Type, delta bool, wanted map[string]*Resource, has map[string]string, nacks Nacks) *Update {
	u := &Update{Has: map[string]string{}, Changed: map[string]*Resource{}}
	if t.Whole() && !delta {
		return u.whole(wanted, has, nacks)
	}
	for name, r := range wanted {
		switch {
		case has[name] == r.Version || nacks.has(name, r.Version):
			u.keep(name, has)
		case !r.Absent:
			u.change(r)
		case delta:
			u.Removed = append(u.Removed, name)
			u.Has[name] = r.Version
		case r.Body != nil && has[name] != "": // a state-of-the-world client is sent an empty resource
			u.change(r)
		default:
			u.Has[name] = r.Version
		}
	}
	for name := range has {
		if wanted[name] == nil && delta {
			u.Removed = append(u.Removed, name)
		}
	}
	if len(u.Send)+len(u.Removed) == 0 {
		return nil
	}
	u.sort()
	return u
}

// whole is for types whose responses contain everything: after a change of one resource all of them are sent.
func (u *Update) whole(wanted map[string]*Resource, has map[string]string, nacks Nacks) *Update {
	changed := false
	for name, r := range wanted {
		u.Has[name] = r.Version
		fresh := has[name] != r.Version
		switch {
		case nacks.has(name, r.Version):
			fresh = false
			if accepted := nacks.accepted[name]; accepted != nil { // without it the client would delete the resource
				u.Send = append(u.Send, accepted)
			}
		case !r.Absent:
			u.Send = append(u.Send, r)
			if fresh {
				u.Changed[name] = r
			}
		}
		changed = changed || fresh
	}
	for name := range has {
		changed = changed || wanted[name] == nil
	}
	if !changed {
		return nil
	}
	u.sort()
	return u
}

func (u *Update) keep(name string, has map[string]string) {
	if version, ok := has[name]; ok {
		u.Has[name] = version
	}
}

func (u *Update) change(r *Resource) {
	u.Send = append(u.Send, r)
	u.Changed[r.Name] = r
	u.Has[r.Name] = r.Version
}

func (u *Update) sort() {
	slices.SortFunc(u.Send, func(x, y *Resource) int { return strings.Compare(x.Name, y.Name) })
	slices.Sort(u.Removed)
}

// Version returns the version of a whole response. The server does not use it; clients show it.
func (u *Update) Version() string {
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(u.Has)) {
		fmt.Fprintf(sum, "%s %s\n", name, u.Has[name])
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// Nacks are the versions of one type that one client has rejected.
type Nacks struct {
	versions map[string]map[string]bool // by name
	accepted map[string]*Resource       // what the client has accepted, by name
}

// maxNacks bounds the rejected versions of one resource that are remembered for one client.
const maxNacks = 16

// maxReason bounds how much of a client's reason for a NACK is read.
const maxReason = 8 << 10

func (n Nacks) has(name, version string) bool { return n.versions[name][version] }

// Reject records that a client has rejected an update, and returns the names of the rejected resources. Clients reject
// an update as a whole but keep its valid resources, and name the invalid ones in their reason. If the reason names
// none, all changed resources count as rejected.
func (n *Nacks) Reject(changed map[string]*Resource, reason string) (names []string) {
	reason = reason[:min(len(reason), maxReason)]
	for name := range changed {
		if strings.Contains(reason, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		names = slices.Collect(maps.Keys(changed))
	}
	if n.versions == nil {
		n.versions = map[string]map[string]bool{}
	}
	for _, name := range names {
		if n.versions[name] == nil || len(n.versions[name]) >= maxNacks {
			n.versions[name] = map[string]bool{}
		}
		n.versions[name][changed[name].Version] = true
	}
	slices.Sort(names)
	return names
}

// Accept records what a client has accepted, for types whose responses contain everything.
func (n *Nacks) Accept(changed map[string]*Resource) {
	if n.accepted == nil {
		n.accepted = map[string]*Resource{}
	}
	maps.Copy(n.accepted, changed)
}
