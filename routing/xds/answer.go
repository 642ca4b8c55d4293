package xds

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// answer is what one stream is to be sent of one type.
type answer struct {
	// send are the resources with their content, removed the names of those that are gone.
	send    []*resource
	removed []string
	// has is what the client has then: versions by name.
	has map[string]string
	// changed are those of send that the client does not have yet.
	changed map[string]*resource
}

// difference decides what a client has to be sent: wanted is what it is to have, has are the versions that it has. What it
// has refused before, by name and version, is not sent again. It returns nil if there is nothing to say.
func difference(t Type, delta bool, wanted map[string]*resource, has map[string]string, refused refusals) *answer {
	a := &answer{has: map[string]string{}, changed: map[string]*resource{}}
	if t.whole() && !delta {
		return a.whole(wanted, has, refused)
	}
	for name, r := range wanted {
		switch {
		case has[name] == r.version || refused.has(name, r.version):
			a.keep(name, has)
		case !r.absent:
			a.change(r)
		case delta:
			a.removed = append(a.removed, name)
			a.has[name] = r.version
		case r.body != nil && has[name] != "": // a state-of-the-world client is told by an empty one
			a.change(r)
		default:
			a.has[name] = r.version
		}
	}
	for name := range has {
		if wanted[name] == nil && delta {
			a.removed = append(a.removed, name)
		}
	}
	if len(a.send)+len(a.removed) == 0 {
		return nil
	}
	a.sort()
	return a
}

// whole is for types whose answers hold everything: a change of one resource has all of them sent again.
func (a *answer) whole(wanted map[string]*resource, has map[string]string, refused refusals) *answer {
	news := false
	for name, r := range wanted {
		a.has[name] = r.version
		fresh := has[name] != r.version
		switch {
		case refused.has(name, r.version):
			fresh = false
			if kept := refused.instead(name); kept != nil { // left out, it would be gone
				a.send = append(a.send, kept)
			}
		case !r.absent:
			a.send = append(a.send, r)
			if fresh {
				a.changed[name] = r
			}
		}
		news = news || fresh
	}
	for name := range has {
		news = news || wanted[name] == nil
	}
	if !news {
		return nil
	}
	a.sort()
	return a
}

func (a *answer) keep(name string, has map[string]string) {
	if version, ok := has[name]; ok {
		a.has[name] = version
	}
}

func (a *answer) change(r *resource) {
	a.send = append(a.send, r)
	a.changed[r.name] = r
	a.has[r.name] = r.version
}

func (a *answer) sort() {
	slices.SortFunc(a.send, func(x, y *resource) int { return strings.Compare(x.name, y.name) })
	slices.Sort(a.removed)
}

// refusals are the versions of one type that one client refused.
type refusals struct {
	versions map[string]map[string]bool // by name
	accepted map[string]*resource       // what it has accepted, by name
}

// maxRefused bounds the versions of one resource that are remembered for one client.
const maxRefused = 16

func (r refusals) has(name, version string) bool { return r.versions[name][version] }

// instead is what the client accepted of a resource of which it refused a later version; nil if nothing.
func (r refusals) instead(name string) *resource { return r.accepted[name] }

// refuse takes down that a client refused an answer. Clients refuse an answer as a whole but keep what was good in it, and
// name the bad ones in their message; where they do not, everything that was new in it is under suspicion.
func (r *refusals) refuse(changed map[string]*resource, message string) (names []string) {
	for name := range changed {
		if strings.Contains(message, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		names = slices.Collect(maps.Keys(changed))
	}
	if r.versions == nil {
		r.versions = map[string]map[string]bool{}
	}
	for _, name := range names {
		if r.versions[name] == nil || len(r.versions[name]) >= maxRefused {
			r.versions[name] = map[string]bool{}
		}
		r.versions[name][changed[name].version] = true
	}
	slices.Sort(names)
	return names
}

// accept takes down what a client accepted, for the types whose answers are whole.
func (r *refusals) accept(changed map[string]*resource) {
	if r.accepted == nil {
		r.accepted = map[string]*resource{}
	}
	maps.Copy(r.accepted, changed)
}

// response is an answer as go-control-plane's server sends it.
type response struct {
	request *discovery.DiscoveryRequest
	answer  *answer
	version string
}

var _ cache.Response = (*response)(nil)

func bodies(list []*resource) []*anypb.Any {
	out := make([]*anypb.Any, 0, len(list))
	for _, r := range list {
		if r.body != nil {
			out = append(out, r.body)
		}
	}
	return out
}

// GetDiscoveryResponse implements [cache.Response]. The server adds the nonce.
func (r *response) GetDiscoveryResponse() (*discovery.DiscoveryResponse, error) {
	return &discovery.DiscoveryResponse{TypeUrl: r.request.GetTypeUrl(), VersionInfo: r.version, Resources: bodies(r.answer.send)}, nil
}

// GetRequest implements [cache.Response].
func (r *response) GetRequest() *discovery.DiscoveryRequest { return r.request }

// GetVersion implements [cache.Response].
func (r *response) GetVersion() (string, error) { return r.version, nil }

// GetResponseVersion implements [cache.Response].
func (r *response) GetResponseVersion() string { return r.version }

// GetReturnedResources implements [cache.Response].
func (r *response) GetReturnedResources() map[string]string { return r.answer.has }

// GetContext implements [cache.Response].
func (r *response) GetContext() context.Context { return context.Background() }

// deltaResponse is an answer on a delta stream.
type deltaResponse struct {
	request *discovery.DeltaDiscoveryRequest
	answer  *answer
	version string
}

var _ cache.DeltaResponse = (*deltaResponse)(nil)

// GetDeltaDiscoveryResponse implements [cache.DeltaResponse]. The server adds the nonce.
func (r *deltaResponse) GetDeltaDiscoveryResponse() (*discovery.DeltaDiscoveryResponse, error) {
	out := &discovery.DeltaDiscoveryResponse{
		TypeUrl: r.request.GetTypeUrl(), SystemVersionInfo: r.version, RemovedResources: r.answer.removed,
	}
	for _, one := range r.answer.send {
		out.Resources = append(out.Resources, &discovery.Resource{Name: one.name, Version: one.version, Resource: one.body})
	}
	return out, nil
}

// GetDeltaRequest implements [cache.DeltaResponse].
func (r *deltaResponse) GetDeltaRequest() *discovery.DeltaDiscoveryRequest { return r.request }

// GetSystemVersion implements [cache.DeltaResponse].
func (r *deltaResponse) GetSystemVersion() (string, error) { return r.version, nil }

// GetResponseVersion implements [cache.DeltaResponse].
func (r *deltaResponse) GetResponseVersion() string { return r.version }

// GetNextVersionMap implements [cache.DeltaResponse].
func (r *deltaResponse) GetNextVersionMap() map[string]string { return r.answer.has }

// GetReturnedResources implements [cache.DeltaResponse].
func (r *deltaResponse) GetReturnedResources() map[string]string { return r.answer.has }

// GetContext implements [cache.DeltaResponse].
func (r *deltaResponse) GetContext() context.Context { return context.Background() }

// version is that of a whole answer. It means nothing to the server; clients show it.
func (a *answer) version() string {
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(a.has)) {
		fmt.Fprintf(sum, "%s %s\n", name, a.has[name])
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}
