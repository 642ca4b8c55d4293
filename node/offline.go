package node

import (
	"cmp"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore/snapshot"
)

// What a command can find out from a file alone, without a member to ask.

// BundleReport says what a SPIFFE bundle document holds.
type BundleReport struct {
	TrustDomain     string          `json:"trust_domain,omitempty"`
	Sequence        *uint64         `json:"sequence,omitempty"`
	RefreshHint     string          `json:"refresh_hint,omitempty"`
	Digest          string          `json:"digest"`
	X509Authorities []X509Authority `json:"x509_authorities"`
	JWTAuthorities  []JWTAuthority  `json:"jwt_authorities"`
	// Ignored are the parts without effect, and why.
	Ignored []string `json:"ignored"`
	// PEM holds the X.509 authorities as certificates.
	PEM []byte `json:"-"`
}

// X509Authority is one certificate of a bundle.
type X509Authority struct {
	Subject   string    `json:"subject"`
	KeyID     string    `json:"key_id"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

// JWTAuthority is one JWT key of a bundle.
type JWTAuthority struct {
	KeyID string `json:"key_id"`
	Key   string `json:"key"`
}

// unnamed stands for the trust domain of a document that is read without knowing for which it is. No rule on documents
// depends on it; RFC 2606 keeps it from being anybody's.
const unnamed = "unnamed.invalid"

// ReadBundle reads a bundle document as the cluster itself would, and says what is in it. Which trust domain it is for
// stands nowhere in the document; trustDomain is empty where the caller does not know. The error says why the document
// would be refused.
func ReadBundle(trustDomain string, document []byte) (*BundleReport, error) {
	td, err := bundle.ParseTrustDomain(cmp.Or(trustDomain, unnamed))
	if err != nil {
		return nil, err
	}
	b, ignored, err := bundle.Parse(td, document)
	switch {
	case err != nil && trustDomain == "":
		return nil, errors.Unwrap(err) // without the name, which is nobody's
	case err != nil:
		return nil, err
	}
	digest := b.Digest()
	r := &BundleReport{
		TrustDomain: trustDomain, Digest: hex.EncodeToString(digest[:]), PEM: b.PEM(),
		X509Authorities: []X509Authority{}, JWTAuthorities: []JWTAuthority{}, Ignored: []string{},
	}
	if n, ok := b.Sequence(); ok {
		r.Sequence = &n
	}
	if d, ok := b.RefreshHint(); ok {
		r.RefreshHint = d.String()
	}
	for _, c := range b.X509Authorities() {
		r.X509Authorities = append(r.X509Authorities, X509Authority{
			Subject: c.Subject.String(), KeyID: hex.EncodeToString(c.SubjectKeyId), NotBefore: c.NotBefore, NotAfter: c.NotAfter,
		})
	}
	for id, key := range b.JWTAuthorities() {
		r.JWTAuthorities = append(r.JWTAuthorities, JWTAuthority{KeyID: id, Key: bundle.KeyKind(key)})
	}
	slices.SortFunc(r.JWTAuthorities, func(a, b JWTAuthority) int { return cmp.Compare(a.KeyID, b.KeyID) })
	for _, i := range ignored {
		r.Ignored = append(r.Ignored, i.String())
	}
	return r, nil
}

// BundleMap writes the SPIFFE bundle map of bundle documents by trust domain, each as the cluster itself would read it.
func BundleMap(documents map[string][]byte) ([]byte, error) {
	var all []*bundle.Bundle
	for name, document := range documents {
		td, err := bundle.ParseTrustDomain(name)
		if err != nil {
			return nil, err
		}
		b, _, err := bundle.Parse(td, document)
		if err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	return bundle.MarshalMap(all)
}

// SnapshotReport says what a snapshot file holds.
type SnapshotReport struct {
	FormatVersion uint32          `json:"format_version"`
	ClusterID     string          `json:"cluster_id"`
	Revision      uint64          `json:"revision"`
	Time          time.Time       `json:"time"`
	Bytes         int64           `json:"bytes"`
	SHA256        string          `json:"sha256"`
	Rows          int             `json:"rows"`
	Tables        []SnapshotTable `json:"tables"`
}

// SnapshotTable counts the rows of one table.
type SnapshotTable struct {
	Name string `json:"name"`
	Rows int    `json:"rows"`
}

// InspectSnapshot reads a snapshot to its end, checks it whole, its SHA-256 included, and says what it is.
func InspectSnapshot(r io.Reader) (*SnapshotReport, error) {
	info, err := snapshot.Inspect(r)
	if err != nil {
		return nil, err
	}
	report := &SnapshotReport{
		FormatVersion: info.FormatVersion, ClusterID: info.ClusterID, Revision: uint64(info.Revision), Time: info.Time,
		Bytes: info.Bytes, SHA256: hex.EncodeToString(info.SHA256[:]), Rows: info.Rows, Tables: []SnapshotTable{},
	}
	for _, t := range info.Tables {
		report.Tables = append(report.Tables, SnapshotTable{Name: t.Name, Rows: t.Rows})
	}
	return report, nil
}
