package xds

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// update is what one stream is to be sent of one type.
type update struct {
	// send are the resources with their content, removed the names of those that do not exist any more.
	send    []*resource
	removed []string
	// has is what the client has afterwards: versions by name.
	has map[string]string
	// changed are those of send that the client does not have yet.
	changed map[string]*resource
}

// difference returns what a client has to be sent, or nil. wanted is what it is to have, and has the versions that it
// has. A version that the client has rejected is not sent again.
func difference(t Type, delta bool, wanted map[string]*resource, has map[string]string, nacks nacks) *update {
	u := &update{has: map[string]string{}, changed: map[string]*resource{}}
	if t.whole() && !delta {
		return u.whole(wanted, has, nacks)
	}
	for name, r := range wanted {
		switch {
		case has[name] == r.version || nacks.has(name, r.version):
			u.keep(name, has)
		case !r.absent:
			u.change(r)
		case delta:
			u.removed = append(u.removed, name)
			u.has[name] = r.version
		case r.body != nil && has[name] != "": // a state-of-the-world client is sent an empty resource
			u.change(r)
		default:
			u.has[name] = r.version
		}
	}
	for name := range has {
		if wanted[name] == nil && delta {
			u.removed = append(u.removed, name)
		}
	}
	if len(u.send)+len(u.removed) == 0 {
		return nil
	}
	u.sort()
	return u
}

// whole is for types whose responses contain everything: after a change of one resource all of them are sent.
func (u *update) whole(wanted map[string]*resource, has map[string]string, nacks nacks) *update {
	changed := false
	for name, r := range wanted {
		u.has[name] = r.version
		fresh := has[name] != r.version
		switch {
		case nacks.has(name, r.version):
			fresh = false
			if accepted := nacks.accepted[name]; accepted != nil { // without it the client would delete the resource
				u.send = append(u.send, accepted)
			}
		case !r.absent:
			u.send = append(u.send, r)
			if fresh {
				u.changed[name] = r
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

func (u *update) keep(name string, has map[string]string) {
	if version, ok := has[name]; ok {
		u.has[name] = version
	}
}

func (u *update) change(r *resource) {
	u.send = append(u.send, r)
	u.changed[r.name] = r
	u.has[r.name] = r.version
}

func (u *update) sort() {
	slices.SortFunc(u.send, func(x, y *resource) int { return strings.Compare(x.name, y.name) })
	slices.Sort(u.removed)
}

// version returns the version of a whole response. The server does not use it; clients show it.
func (u *update) version() string {
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(u.has)) {
		fmt.Fprintf(sum, "%s %s\n", name, u.has[name])
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// nacks are the versions of one type that one client has rejected.
type nacks struct {
	versions map[string]map[string]bool // by name
	accepted map[string]*resource       // what the client has accepted, by name
}

// maxNacks bounds the rejected versions of one resource that are remembered for one client.
const maxNacks = 16

func (n nacks) has(name, version string) bool { return n.versions[name][version] }

// reject records that a client has rejected an update, and returns the names of the rejected resources. Clients reject
// an update as a whole but keep its valid resources, and name the invalid ones in their reason. If the reason names
// none, all changed resources count as rejected.
func (n *nacks) reject(changed map[string]*resource, reason string) (names []string) {
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
		n.versions[name][changed[name].version] = true
	}
	slices.Sort(names)
	return names
}

// accept records what a client has accepted, for types whose responses contain everything.
func (n *nacks) accept(changed map[string]*resource) {
	if n.accepted == nil {
		n.accepted = map[string]*resource{}
	}
	maps.Copy(n.accepted, changed)
}
