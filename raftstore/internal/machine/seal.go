package machine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/encoding/protowire"
)

// A command is encoded where it is proposed and decoded where it is applied, on every member. Its checksum covers what
// lies between: the sender's and the leader's memory, their disks, and the way between them.

const (
	checksumField = 15 // Command.checksum
	commandsField = 3  // Entry.commands
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	sealTag    = protowire.AppendTag(nil, checksumField, protowire.Fixed32Type)
	sealBytes  = len(sealTag) + 4
)

// Seal appends the checksum to an encoded command, as its last field.
func Seal(command []byte) []byte {
	sum := crc32.Checksum(command, castagnoli)
	return binary.LittleEndian.AppendUint32(append(command, sealTag...), sum)
}

var errSeal = errors.New("a command that does not match its checksum: it was damaged after it was proposed")

// CheckSeal verifies the checksum of an encoded command, if it has one, and reports whether it has.
func CheckSeal(command []byte) (sealed bool, err error) {
	content := len(command) - sealBytes
	if content < 0 || string(command[content:content+len(sealTag)]) != string(sealTag) {
		return false, nil
	}
	if binary.LittleEndian.Uint32(command[content+len(sealTag):]) != crc32.Checksum(command[:content], castagnoli) {
		return true, errSeal
	}
	return true, nil
}

// checkSeals verifies the checksums of all commands in an encoded entry. From sealedVersion on, all must have one.
func checkSeals(entry []byte, version uint32) error {
	for len(entry) > 0 {
		field, kind, n := protowire.ConsumeTag(entry)
		if n < 0 {
			return protowire.ParseError(n)
		}
		entry = entry[n:]
		if n = protowire.ConsumeFieldValue(field, kind, entry); n < 0 {
			return protowire.ParseError(n)
		}
		if field == commandsField && kind == protowire.BytesType {
			command, _ := protowire.ConsumeBytes(entry)
			sealed, err := CheckSeal(command)
			if err != nil {
				return err
			}
			if !sealed && version >= SealedVersion {
				return fmt.Errorf("a command without a checksum, and version %d requires one", version)
			}
		}
		entry = entry[n:]
	}
	return nil
}
