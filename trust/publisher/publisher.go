// Package publisher keeps the bundle endpoint of a member equal to its replicated state: the hosted bundles, their
// statements and issuers, and the foreign bundles that the cluster attests to as a hub.
//
// It renders each change once. A domain whose rows cannot be read keeps what was last published of it, and the others
// go on: an old bundle is better than none, and no domain delays the rotation of another. If the state as a whole
// cannot be rendered, the endpoint goes on with the one before. Start reading at [Publisher.Run].
package publisher

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/trust"
)

// HostNames is a source of web certificates that needs to know the host names of the endpoint.
type HostNames interface {
	// SetHosts replaces the endpoint hosts of hosted domains.
	SetHosts(hosts []string)
}

// Config is what a [Publisher] needs.
type Config struct {
	Store   *raftstore.Store
	Index   *trust.Index
	Home    spiffeid.TrustDomain
	Handler *endpoint.Handler
	Logger  hclog.Logger
}

// Publisher publishes the state of a member at its bundle endpoint.
type Publisher struct {
	Config

	published atomic.Bool
	certified atomic.Pointer[HostNames]
	hosts     atomic.Pointer[[]string] // as they were last published
	// last is what was last read of each hosted domain. Only Run uses it.
	last map[string]endpoint.Hosted
	// leftOut is the number of foreign domains that did not fit into the map. Only Run uses it.
	leftOut int
}

// New returns a publisher. Nothing is published before [Publisher.Run].
func New(c Config) *Publisher { return &Publisher{Config: c} }

// Run follows the tables until ctx ends. Without a quorum the last state stays published.
func (p *Publisher) Run(ctx context.Context) error {
	over := append(p.Index.Over(), p.Index.Hosted.History.Prefix(""))
	return feed.Latest(ctx, p.Store, over, func(v *raftstore.View) error {
		if err := p.publish(v); err != nil {
			p.Logger.Error("cannot publish the hosted bundles; the endpoint serves what it served before",
				"revision", v.Revision(), "error", err)
		}
		return nil
	})
}

func (p *Publisher) publish(v *raftstore.View) error {
	publication := endpoint.Publication{Home: p.Home}
	read, homeKnown := make(map[string]endpoint.Hosted), false
	for td := range p.Index.Hosted.Bundles.Revisions(v, "") {
		hosted, err := p.hosted(v, td)
		if err != nil {
			last, known := p.last[td]
			if !known && td == p.Home.Name() {
				return err
			}
			p.logUnreadable(v, err)
			if !known {
				continue
			}
			hosted = last
		}
		read[td] = hosted
		publication.Hosted = append(publication.Hosted, hosted)
		homeKnown = homeKnown || td == p.Home.Name()
	}
	if !homeKnown {
		return nil // the cluster is being formed, or this member has not caught up with it
	}
	p.last = read
	var unreadable error
	if publication.Attested, unreadable = p.Index.AttestedEntries(v); unreadable != nil {
		p.logUnreadable(v, unreadable)
	}
	if err := p.Handler.Publish(publication); err != nil {
		return err
	}
	p.logLeftOut()
	p.published.Store(true)
	var hosts []string
	for _, hosted := range publication.Hosted {
		if hosted.Host != "" {
			hosts = append(hosts, hosted.Host)
		}
	}
	p.hosts.Store(&hosts)
	p.setHosts()
	return nil
}

// logUnreadable logs that a domain is published as it was last read, or not at all if it never was.
func (p *Publisher) logUnreadable(v *raftstore.View, err error) {
	p.Logger.Error("cannot read what a domain publishes; the endpoint serves what it served before of that domain",
		"revision", v.Revision(), "error", err)
}

// hosted returns what the endpoint serves of one hosted domain.
func (p *Publisher) hosted(v *raftstore.View, td string) (hosted endpoint.Hosted, err error) {
	row, _, err := p.Index.Hosted.Bundles.Get(v, td)
	if err != nil {
		return hosted, err
	}
	if hosted.Bundle, err = trust.Parse(row.Value); err != nil {
		return hosted, fmt.Errorf("stored bundle of %s: %w", td, err)
	}
	domain, _, err := p.Index.Hosted.Domains.Get(v, td)
	if err != nil {
		return hosted, fmt.Errorf("hosted domain %s: %w", td, err)
	}
	hosted.Host = domain.Value.GetEndpointHost()
	if issuer := domain.Value.GetOidcIssuer(); issuer != "" {
		if hosted.Issuer, err = endpoint.ParseIssuer(issuer); err != nil {
			return hosted, fmt.Errorf("hosted domain %s: %w", td, err)
		}
	}
	hosted.Statements, _, err = p.Index.Statements(v, td)
	return hosted, err
}

// logLeftOut logs a change of the number of domains that do not fit into the map.
func (p *Publisher) logLeftOut() {
	n := p.Handler.MapLeftOut()
	if n == p.leftOut {
		return
	}
	p.leftOut = n
	level := p.Logger.Error
	if n == 0 {
		level = p.Logger.Info
	}
	level("foreign domains, the last by name, do not fit into the bundle map", "left_out", n,
		"most_domains", bundle.MaxMapDomains, "most_bytes", bundle.MaxMapBytes)
}

// SetHostNames gives source the endpoint hosts of hosted domains, now and after each change.
func (p *Publisher) SetHostNames(source HostNames) {
	p.certified.Store(&source)
	p.setHosts()
}

func (p *Publisher) setHosts() {
	if source, hosts := p.certified.Load(), p.hosts.Load(); source != nil && hosts != nil {
		(*source).SetHosts(*hosts)
	}
}

// Ready returns an error while the endpoint has nothing to serve.
func (p *Publisher) Ready() error {
	if !p.published.Load() {
		return fmt.Errorf("no bundle of %s has been published yet", p.Home.Name())
	}
	return nil
}
