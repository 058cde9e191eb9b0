//! The ledger's side of the journal: its entries, the files of accounts, the keys.
