package memberid

import (
	"encoding/binary"
	"errors"
	"fmt"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// addressPurpose is the purpose of the signatures of address statements.
const addressPurpose = "address statement"

// StateAddress returns the statement that the member with this identity key is at an address. start is the number of
// its start, which rises with each one.
func (i *Identity) StateAddress(id, address string, start uint64) (*ententev1.AddressStatement, error) {
	s := &ententev1.AddressStatement{
		MemberId: id, Address: address, Start: start, IdentityCertificate: i.Certificate.Certificate[0],
	}
	var err error
	if s.Signature, err = i.Sign(addressPurpose, signedParts(s)...); err != nil {
		return nil, fmt.Errorf("sign the statement on this member's address: %w", err)
	}
	return s, nil
}

// VerifyAddress verifies the form and the signature of an address statement, and returns the digest of the identity key
// that has signed it. Whether that is the key of the member is for the caller to decide.
func VerifyAddress(s *ententev1.AddressStatement) (Digest, error) {
	const maxSignature = 128 // one by a P-256 key has some 72 bytes
	err := errors.Join(CheckID(s.GetMemberId()), CheckAddress(s.GetAddress()))
	switch {
	case err != nil:
		return Digest{}, fmt.Errorf("address statement: %w", err)
	case s.GetStart() == 0:
		return Digest{}, fmt.Errorf("address statement of member %s: it has no start", s.GetMemberId())
	case len(s.GetSignature()) > maxSignature:
		return Digest{}, fmt.Errorf("address statement of member %s: its signature has %d bytes",
			s.GetMemberId(), len(s.GetSignature()))
	}
	digest, err := VerifyIdentity(s.GetIdentityCertificate(), addressPurpose, s.GetSignature(), signedParts(s)...)
	if err != nil {
		return Digest{}, fmt.Errorf("address statement of member %s: %w", s.GetMemberId(), err)
	}
	return digest, nil
}

func signedParts(s *ententev1.AddressStatement) [][]byte {
	return [][]byte{
		[]byte(s.GetMemberId()), []byte(s.GetAddress()), binary.BigEndian.AppendUint64(nil, s.GetStart()),
	}
}
