"""What symskew is combined with: one list of cases, which the tests run and the table in the docs is made of."""
