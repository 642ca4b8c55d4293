package directory

import (
	"errors"
	"fmt"
	"os"

	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/sealed"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

// A member whose log is damaged does not know the other members from it. It keeps them in a file of their own, with
// what they have stated of their addresses.

// maxFileBytes is far above a membership of [MaxMembers] with their statements.
const maxFileBytes = 256 << 10

// Save writes the present members to a file.
func (d *Directory) Save(path string) error {
	members, index := d.Identities()
	if len(members) == 0 {
		return nil
	}
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(&ententev1.GetMembershipResponse{
		Revision: uint64(index), Members: members, Statements: d.Statements(),
	})
	if err != nil {
		return fmt.Errorf("save the members: %w", err)
	}
	if err := sealed.Write(path, content); err != nil {
		return fmt.Errorf("save the members: %w", err)
	}
	return nil
}

// Load learns the members that were saved to a file.
func (d *Directory) Load(path string) error {
	saved, err := readFile(path)
	if err != nil {
		return err
	}
	_, err = d.Learn(raftstore.Revision(saved.GetRevision()), saved.GetMembers())
	return err
}

// LoadStatements reads the statements on addresses that were saved to a file. Those of members that are no longer
// present do not count.
func (d *Directory) LoadStatements(path string) error {
	saved, err := readFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, s := range saved.GetStatements() {
		identity, err := memberid.VerifyAddress(s)
		if err != nil {
			return fmt.Errorf("read the members from %s: %w", path, err)
		}
		d.mu.Lock()
		d.stated[identity] = statement{s, identity}
		d.mu.Unlock()
	}
	return nil
}

// StatedAddresses returns the addresses that were saved to a file, of whichever member; none if there is no file.
func StatedAddresses(path string) ([]string, error) {
	saved, err := readFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var addresses []string
	for _, m := range saved.GetMembers() {
		addresses = append(addresses, m.GetAddress())
	}
	for _, s := range saved.GetStatements() {
		addresses = append(addresses, s.GetAddress())
	}
	return addresses, nil
}

func readFile(path string) (*ententev1.GetMembershipResponse, error) {
	content, err := sealed.Read(path, maxFileBytes)
	if err != nil {
		return nil, fmt.Errorf("read the members from %s: %w", path, err)
	}
	saved := &ententev1.GetMembershipResponse{}
	if err := proto.Unmarshal(content, saved); err != nil {
		return nil, fmt.Errorf("read the members from %s: %w", path, err)
	}
	return saved, nil
}
