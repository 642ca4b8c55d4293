package federation

// actionReset is the action of an operator who has a bundle accepted whatever its sequence, in the audit log.
const actionReset = "reset bundle sequence"
