use vault_core::{TriesLeft, container::AccountId, keystore::TpmKind};

use super::*;

fn id(number: i64) -> AccountId {
    number.to_string().parse().unwrap()
}

fn passkey((id, name): &(i64, &str)) -> Entry {
    serde_json::from_value(serde_json::json!({
        "id": id, "rpId": "example.org", "rpName": "Example", "userName": name, "displayName": name, "name": null,
        "userHandle": "AA", "credentialId": "AA", "takes": "pin", "created": 0, "lastUsed": null, "binned": null,
    }))
    .unwrap()
}

/// These passkeys are there, and Mallory is in the bin.
fn looked(names: &[(i64, &str)]) -> Event {
    let standing = Standing { tries: TriesLeft::ByTpm(8), kind: TpmKind::Software, model: String::new() };
    let binned = Entry { binned: Some(1), ..passkey(&(9, "mallory")) };
    let passkeys = names.iter().map(passkey).chain([binned]).collect();
    Event::Ended(Job::Look, Outcome { overview: Some((standing, passkeys)), ..Outcome::default() })
}

fn ended(job: Job, printed: &str) -> Event {
    Event::Ended(job, Outcome { printed: printed.to_owned().into(), ..Outcome::default() })
}

fn refused(job: Job, code: Exit, text: &str) -> Event {
    Event::Ended(job, Outcome { code: code.code(), refused: text.to_owned(), ..Outcome::default() })
}

/// Alice, Bob and Carol are listed, and nothing runs.
fn model() -> Model {
    let (mut model, first) = Model::new();
    assert_eq!(first, Effect::Run(Job::Look));
    assert_eq!(model.event(looked(&[(1, "alice"), (2, "bob"), (3, "carol")])), None);
    model
}

fn press(model: &mut Model, keys: &str) -> Vec<Effect> {
    keys.chars().filter_map(|key| model.key(Key::Char(key))).collect()
}

fn chosen(model: &Model) -> Option<&str> {
    model.passkey().map(Entry::name)
}

#[test]
fn the_chosen_passkey_is_the_one_that_is_deleted() {
    let mut model = model();
    assert_eq!(press(&mut model, "jjd"), [Effect::Run(Job::Delete(id(3)))]);
}

#[test]
fn a_command_that_is_typed_while_something_is_read_runs_after_it() {
    let mut model = model();
    assert_eq!(press(&mut model, "r"), [Effect::Run(Job::Look)]);
    assert_eq!(press(&mut model, "jd/p"), [], "one of them");
    assert!(model.dialog.is_none(), "what it asks is not answered with what was typed for something else");
    assert_eq!(
        model.event(looked(&[(1, "alice")])),
        Some(Effect::Run(Job::Delete(id(2)))),
        "as it was chosen"
    );
}

#[test]
fn what_is_typed_while_something_is_done_is_meant_for_nothing() {
    let mut model = model();
    press(&mut model, "d");
    assert_eq!(press(&mut model, "dpfcbhrn/"), []);
    assert!(model.dialog.is_none());
    assert_eq!(model.event(ended(Job::Delete(id(1)), "done")), Some(Effect::Run(Job::Look)));
}

#[test]
fn what_was_read_for_another_view_is_not_shown() {
    let mut model = model();
    assert_eq!(press(&mut model, "h"), [Effect::Run(Job::Doctor)]);
    assert_eq!(model.key(Key::Esc), None);
    assert_eq!(model.event(refused(Job::Doctor, Exit::NoTpm, "no TPM")), Some(Effect::Run(Job::Look)));
    assert_eq!((model.trouble.as_deref(), model.lines()), (None, 3));
    assert_eq!(press(&mut model, "b"), []);
    assert_eq!(chosen(&model), Some("mallory"), "what is known is shown at once");
    assert_eq!(model.event(looked(&[(1, "alice")])), Some(Effect::Run(Job::Look)));
    assert_eq!((chosen(&model), model.lines()), (Some("mallory"), 1));
}

#[test]
fn the_same_passkey_stays_chosen_when_others_come_and_go() {
    let mut model = model();
    press(&mut model, "jr");
    assert_eq!(chosen(&model), Some("bob"));
    model.event(looked(&[(0, "zoe"), (1, "alice"), (2, "bob")]));
    assert_eq!(chosen(&model), Some("bob"));
    press(&mut model, "r");
    model.event(looked(&[(0, "zoe")]));
    assert_eq!(chosen(&model), Some("zoe"));
}

#[test]
fn a_filter_leaves_what_has_the_text_and_the_choice_is_among_it() {
    let mut model = model();
    press(&mut model, "j/CAR\n");
    assert_eq!((model.lines(), chosen(&model)), (1, Some("carol")));
    assert_eq!(press(&mut model, "d"), [Effect::Run(Job::Delete(id(3)))]);
    let mut model = self::model();
    press(&mut model, "/nobody\n");
    assert_eq!(press(&mut model, "dn"), [], "there is none");
    model.key(Key::Esc);
    assert_eq!(model.lines(), 3);
}

#[test]
fn a_question_is_answered_with_what_was_typed() {
    let mut model = model();
    press(&mut model, "d");
    let asked = || Event::Asked { prompt: "PIN: ".to_owned(), hidden: true };
    assert_eq!(model.event(asked()), None);
    press(&mut model, "2718x");
    model.key(Key::Backspace);
    assert_eq!(press(&mut model, "\n"), [Effect::Answer(Some("2718".to_owned().into()))]);
    model.event(asked());
    press(&mut model, "2718");
    model.key(Key::Ctrl('u'));
    assert_eq!(press(&mut model, "9\n"), [Effect::Answer(Some("9".to_owned().into()))]);
}

#[test]
fn esc_and_ctrl_c_answer_no_question() {
    for key in [Key::Esc, Key::Ctrl('c')] {
        let mut model = model();
        press(&mut model, "d");
        model.event(Event::Asked { prompt: "PIN: ".to_owned(), hidden: true });
        press(&mut model, "2718");
        assert_eq!(model.key(key), Some(Effect::Answer(None)));
        let event = refused(Job::Delete(id(1)), Exit::NotConfirmed, "passhold: cancelled\nNothing was done.");
        assert_eq!(model.event(event), Some(Effect::Run(Job::Look)));
        assert_eq!(model.said, "cancelled. Nothing was done.");
        assert!(model.dialog.is_none());
    }
}

#[test]
fn a_recovery_code_stays_until_it_was_read() {
    let mut model = model();
    press(&mut model, "c");
    let code = "Recovery code: AAAA\nWrite it down";
    assert_eq!(model.event(ended(Job::RenewCode, code)), Some(Effect::Run(Job::Look)));
    model.event(looked(&[]));
    press(&mut model, "qrd");
    assert!(matches!(&model.dialog, Some(Dialog::Said { text, .. }) if text.contains("AAAA")));
    press(&mut model, "\n");
    assert!(model.dialog.is_none());
}

#[test]
fn what_was_told_after_the_last_answer_is_told_at_the_end() {
    let mut model = model();
    press(&mut model, "d");
    model.event(Event::Noted("delete alice".to_owned()));
    model.event(Event::Asked { prompt: "PIN: ".to_owned(), hidden: true });
    press(&mut model, "1\n");
    model.event(Event::Noted("this PIN is too old".to_owned()));
    model.event(ended(Job::Delete(id(1)), "alice is in the bin"));
    let Some(Dialog::Said { text, .. }) = &model.dialog else { panic!("{model:?}") };
    assert_eq!(text.as_str(), "this PIN is too old\nalice is in the bin");
}

#[test]
fn who_leaves_while_something_is_done_leaves_when_it_is() {
    let mut model = model();
    press(&mut model, "d");
    assert_eq!(press(&mut model, "q"), []);
    let asked = Event::Asked { prompt: "PIN: ".to_owned(), hidden: true };
    assert_eq!(model.event(asked), Some(Effect::Answer(None)), "nobody is there to be asked");
    assert_eq!(model.event(refused(Job::Delete(id(1)), Exit::NotConfirmed, "cancelled")), Some(Effect::Quit));
    let mut model = self::model();
    press(&mut model, "d");
    assert_eq!(press(&mut model, "qq"), [Effect::Quit], "who insists does not wait");
    assert_eq!(press(&mut self::model(), "q"), [Effect::Quit]);
}

#[test]
fn without_a_vault_one_can_be_made_and_nothing_else() {
    let (mut model, _) = Model::new();
    model.event(refused(Job::Look, Exit::NoVault, "passhold: there is no vault\nMake one"));
    assert_eq!(model.trouble.as_deref(), Some("there is no vault\nMake one"));
    assert_eq!(press(&mut model, "bpfcdn"), []);
    assert_eq!(press(&mut model, "s"), [Effect::Run(Job::SetUp)]);
}

#[test]
fn what_makes_no_sense_is_told_and_ends_nothing() {
    let mut model = model();
    press(&mut model, "h");
    model.event(ended(Job::Doctor, "<html>"));
    assert!(model.trouble.as_ref().is_some_and(|why| why.starts_with("what was told makes no sense")));
    assert_eq!(press(&mut model, "d"), []);
    press(&mut model, "r");
    model.event(refused(Job::Doctor, Exit::NoTpm, "no TPM"));
    assert_eq!(model.trouble.as_deref(), Some("no TPM"));
}

#[test]
fn keys_that_are_shown_do_something() {
    for view in ["", "b", "h"] {
        let mut model = model();
        press(&mut model, view);
        for (key, what) in model.keys() {
            assert!(!what.is_empty());
            let key = match key {
                "Esc" => Key::Esc,
                "Enter" => Key::Char('\n'),
                key => Key::Char(key.chars().next().unwrap()),
            };
            let mut model = self::model();
            if let Some(Effect::Run(job)) = press(&mut model, view).pop() {
                let finding =
                    r#"{"findings":[{"id":"tpm","level":"ok","found":"it","why":"so","mend":null}]}"#;
                let is_doctor = job == Job::Doctor;
                model.event(if is_doctor { ended(job, finding) } else { looked(&[(1, "alice")]) });
            }
            let does = model.key(key).is_some() || model.dialog.is_some();
            assert!(does, "{key:?} in {view:?}");
        }
    }
}
