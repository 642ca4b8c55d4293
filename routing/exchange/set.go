package exchange

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"

	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/registry"
)

// setKey identifies a set: the instances of a service that lie in one trust domain of the exporting cluster. The
// service has the name under which it is exported.
type setKey struct{ domain, service string }

func (k setKey) String() string { return k.service + " of " + k.domain }

// digest identifies one version of a set. The zero value stands for no set.
type digest [sha256.Size]byte

func (d digest) none() bool { return d == digest{} }

// version returns the message for a version of a set.
func (k setKey) version(d digest) *ententev1.PeerServiceVersion {
	m := &ententev1.PeerServiceVersion{TrustDomain: k.domain, Service: k.service}
	if !d.none() {
		m.Digest = d[:]
	}
	return m
}

// parseVersion parses the version of a set that a peer sent.
func parseVersion(m *ententev1.PeerServiceVersion) (k setKey, d digest, err error) {
	td, err := bundle.ParseTrustDomain(m.GetTrustDomain())
	if err != nil {
		return k, d, fmt.Errorf(
			"the peer sent a service of %q, which is no trust domain",
			plan.Clip(m.GetTrustDomain()),
		)
	}
	if err := plan.CheckServiceName(m.GetService()); err != nil {
		return k, d, fmt.Errorf("the peer sent a service of %s: %w", td.Name(), err)
	}
	k = setKey{td.Name(), m.GetService()}
	if n := len(m.GetDigest()); n != 0 && n != len(d) {
		return k, d, fmt.Errorf("the peer sent a digest of %d bytes for %s", n, k)
	}
	copy(d[:], m.GetDigest())
	return k, d, nil
}

// exportedSet is a set as it is sent. It is immutable.
type exportedSet struct {
	key    setKey
	digest digest
	// notExported means that the service is not exported to the receiver.
	notExported bool
	// instances are in order of address, without duplicates.
	instances []*ententev1.PeerInstance
}

func newExportedSet(key setKey, notExported bool, instances []*ententev1.PeerInstance) *exportedSet {
	return &exportedSet{key, digestOfSet(key, notExported, instances), notExported, instances}
}

// parts splits a set into messages of bounded size.
func (s *exportedSet) parts() (parts []*ententev1.PeerServiceSet) {
	part, size := &ententev1.PeerServiceSet{Version: s.key.version(s.digest), NotExported: s.notExported}, 0
	for _, i := range s.instances {
		n := proto.Size(i) + 4
		if size > 0 && size+n > partBytes {
			parts = append(parts, part)
			part, size = &ententev1.PeerServiceSet{Version: part.GetVersion()}, 0
		}
		part.Instances = append(part.Instances, i)
		size += n
	}
	part.Last = true
	return append(parts, part)
}

// digestOfSet returns the SHA-256 over the whole content of a set, in which each text is preceded by its length.
func digestOfSet(key setKey, notExported bool, instances []*ententev1.PeerInstance) (d digest) {
	h := sha256.New()
	writeText(h, "entente service set", key.domain, key.service)
	if notExported {
		writeNumber(h, 1)
	} else {
		writeNumber(h, 0)
	}
	writeNumber(h, uint64(len(instances)))
	for _, i := range instances {
		l := i.GetLocality()
		writeText(h, i.GetAddress(), l.GetRegion(), l.GetZone(), l.GetSubZone(), i.GetSpiffeId())
		writeNumber(h, uint64(i.GetWeight()))
		writeNumber(h, uint64(i.GetHealth())) //nolint:gosec // the value of an enumeration, which is only hashed
	}
	h.Sum(d[:0])
	return d
}

func writeText(h hash.Hash, texts ...string) {
	for _, text := range texts {
		writeNumber(h, uint64(len(text)))
		h.Write([]byte(text))
	}
}

func writeNumber(h hash.Hash, n uint64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	h.Write(b[:])
}

// peerInstance returns an instance as it is sent, with the health that counts here.
func peerInstance(i registry.Instance) *ententev1.PeerInstance {
	return &ententev1.PeerInstance{
		Address: i.Address.String(), Locality: i.Locality.Proto(), SpiffeId: i.ID.String(), Weight: i.Weight,
		Health: ententev1.Health(i.Health),
	}
}
