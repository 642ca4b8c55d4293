package main

import (
	"bytes"
	"maps"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/node/inspect"
)

// trustedBundle is the bundle of one domain: its document, and its X.509 authorities in PEM.
type trustedBundle struct {
	document []byte
	report   *inspect.BundleReport
}

func (b trustedBundle) equal(o trustedBundle) bool { return bytes.Equal(b.document, o.document) }

// knownBundles follows a watch of all bundles. Its zero value knows none.
type knownBundles struct {
	byDomain map[string]trustedBundle
	// arrived are the domains of which the watch that is open has told, until it has told the whole state; then nil.
	arrived map[string]bool
}

// take returns what is known after a message of the watch; unread is called for what cannot be read, and stays as it was.
func (k knownBundles) take(m told[ententev1.WatchBundlesResponse], unread func(domain string, err error)) knownBundles {
	next := knownBundles{byDomain: maps.Clone(k.byDomain), arrived: maps.Clone(k.arrived)}
	if next.byDomain == nil {
		next.byDomain = map[string]trustedBundle{}
	}
	if m.first {
		next.arrived = map[string]bool{}
	}
	for _, b := range m.message.GetChanged() {
		domain := b.GetTrustDomain()
		if next.arrived != nil {
			next.arrived[domain] = true
		}
		report, err := inspect.ReadBundle(domain, b.GetDocument())
		if err != nil {
			unread(domain, err)
			continue
		}
		next.byDomain[domain] = trustedBundle{b.GetDocument(), report}
	}
	for _, domain := range m.message.GetDeleted() {
		delete(next.byDomain, domain)
	}
	if next.arrived != nil && !m.message.GetMore() {
		// What the whole state does not hold ended while no watch was open.
		maps.DeleteFunc(next.byDomain, func(domain string, _ trustedBundle) bool { return !next.arrived[domain] })
		next.arrived = nil
	}
	return next
}

// settled says whether the watch that is open has told the whole state.
func (k knownBundles) settled() bool { return k.byDomain != nil && k.arrived == nil }
